"""The training loop: all learners of a group, side by side, on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from kdbench.engine import Stopped
from kdbench.engine.account import Account, accounted
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.lesson import Lesson
from kdbench.engine.saver import Saver
from kdbench.engine.teacher import TeacherStage
from kdbench.engine.units import united

Told = Callable[[Learner, int, float], None]
"""Called after an epoch with the learner, the epoch (from 1) and its headline."""


def train(
    learners: Sequence[Learner],
    teachers: TeacherStage,
    feed: Feed,
    saver: Saver,
    stop: Callable[[], bool],
    tell: Told,
    drop: Callable[[Learner], None],
) -> None:
    """Train every learner to the recipe's last epoch, or until it fails.

    A learner that resumes further on joins when the others reach its position; one
    that fails is handed to `drop` at the end of the epoch. Raises Stopped, with
    everything checkpointed, when `stop()` turns true.
    """
    learners = list(learners)
    with accounted(feed.device, [x.trace for x in learners]) as account:
        _train(learners, teachers, feed, saver, stop, tell, drop, account)


def _train(
    learners: list[Learner],
    teachers: TeacherStage,
    feed: Feed,
    saver: Saver,
    stop: Callable[[], bool],
    tell: Told,
    drop: Callable[[Learner], None],
    account: Account,
) -> None:
    epochs = feed.recipe.epochs
    epoch, first = min((x.position for x in learners), default=(epochs, 0))
    while epoch < epochs and learners:
        with united(learners) as units:
            for step in range(first, feed.steps):
                there = [x.trace for x in learners if x.due((epoch, step))]
                if not there:
                    continue
                lesson = Lesson(feed, teachers, epoch, step)
                for unit in [x for x in units if x.due((epoch, step))]:
                    unit.step(lesson)
                lesson.charge()
                account.tick(there)
                if stop():
                    _save(saver, learners, account)
                    raise Stopped
                if saver.due():
                    _save(saver, learners, account)
        teachers.frozen.check()
        ended = [x for x in learners if x.due((epoch, feed.steps))]
        for learner in ended:
            value = learner.guarded(learner.end_epoch)
            if value is not None:
                tell(learner, epoch + 1, value)
        account.tick([x.trace for x in ended])
        account.charge()
        for learner in [x for x in learners if x.failure is not None]:
            learners.remove(learner)
            drop(learner)
        epoch, first = epoch + 1, 0


def _save(saver: Saver, learners: Sequence[Learner], account: Account) -> None:
    """Checkpoint everyone; each is charged an equal part of the time."""
    for learner in learners:
        learner.trace.settle()
    account.charge()
    started = perf_counter()
    saver.save(learners)
    taken = perf_counter() - started
    for learner in learners:
        learner.trace.spend("checkpoint", taken / len(learners))
