"""The training loop: all learners of a group, side by side, on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdbench.engine import Stopped
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
    epochs = feed.recipe.epochs
    epoch, first = min((x.position for x in learners), default=(epochs, 0))
    while epoch < epochs and learners:
        with united(learners) as units:
            for step in range(first, feed.steps):
                due = [x for x in units if x.due((epoch, step))]
                if not due:
                    continue
                lesson = Lesson(feed, teachers, epoch, step)
                for unit in due:
                    unit.step(lesson)
                lesson.charge()
                if stop():
                    saver.save(learners)
                    raise Stopped
                if saver.due():
                    saver.save(learners)
        teachers.frozen.check()
        for learner in list(learners):
            if learner.due((epoch, feed.steps)):
                value = learner.guarded(learner.end_epoch)
                if value is not None:
                    tell(learner, epoch + 1, value)
            if learner.failure is not None:
                learners.remove(learner)
                drop(learner)
        epoch, first = epoch + 1, 0
