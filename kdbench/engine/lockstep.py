"""The training loop: all learners of a group, side by side, on the same batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from kdbench.engine import Stopped, checkpoint
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.teacher import TeacherStage

Told = Callable[[Learner, int, float], None]
"""Called after an epoch with the learner, the epoch (from 1) and its headline."""


class Saver:
    """Checkpoints on a time budget (monotonic clock: it cannot jump)."""

    def __init__(self, folder: Path, every_s: float):
        self.folder = folder
        self._every_s = every_s
        self._last = monotonic()

    def due(self) -> bool:
        return monotonic() - self._last >= self._every_s

    def save(self, learners: Sequence[Learner]) -> None:
        for learner in learners:
            if learner.failure is None:
                learner.guarded(partial(self._put, learner))

    def _put(self, learner: Learner) -> None:
        self.put(learner.run.id, learner.state())

    def put(self, run_id: str, state: Mapping[str, Any]) -> None:
        checkpoint.save(self.folder, run_id, state)
        self._last = monotonic()


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
        for step in range(first, feed.steps):
            due = [x for x in learners if x.due((epoch, step))]
            if not due:
                continue
            batch = feed.at(epoch, step)
            teachers.begin(batch)
            seen = Counter(view for x in due for view in x.sees)
            asked = Counter(ask for x in due for ask in x.asks)
            for learner in due:
                # (1) views and teachers' answers, made for all by whoever asks first
                feed.add_views(batch, learner.strategy.views)
                answers = teachers.answers(learner.asks)
                versions = _versions([*batch.tensors, *teachers.shared()])
                # (2) this learner's own forward, backward and update
                learner.step(batch, answers)
                # (3) the step is charged as if alone, and by its share
                learner.trace.charge(
                    [(batch.seconds[view], seen[view]) for view in learner.sees],
                    [(teachers.seconds[ask], asked[ask]) for ask in learner.asks],
                )
                # (4) nobody writes to what is shared
                if _versions([*batch.tensors, *teachers.shared()]) != versions:
                    learner.failure = (
                        "wrote in place to a tensor shared by all learners"
                    )
                    batch = feed.at(epoch, step)
                    teachers.begin(batch)
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


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    """The count that torch keeps of in-place writes to each tensor."""
    return [tensor._version for tensor in tensors]
