"""When checkpoints are written, and what happens where they cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from kdbench.engine import checkpoint
from kdbench.engine.faults import is_out_of_memory
from kdbench.records import Run

State = Callable[[], Mapping[str, Any]]


class Saved(Protocol):
    """Who is checkpointed: a learner."""

    failure: str | None

    @property
    def run(self) -> Run: ...

    def state(self) -> dict[str, Any]: ...

    def guarded(self, act: Callable[[], None]) -> None: ...


class Saver:
    """Checkpoints on a time budget (monotonic clock: it cannot jump).

    A checkpoint that cannot be written fails nobody: `note` is told once, and it is
    tried again when the next one is due.
    """

    def __init__(
        self,
        folder: Path,
        every_s: float,
        note: Callable[[str], None] = lambda _: None,
    ):
        self.folder = folder
        self._every_s = every_s
        self._note = note
        self._started = self._last = monotonic()
        self._written: dict[str, float] = {}
        self._missed: dict[str, str] = {}
        self._told = False

    def due(self) -> bool:
        return monotonic() - self._last >= self._every_s

    def save(self, learners: Sequence[Saved]) -> None:
        for learner in learners:
            if learner.failure is None:
                learner.guarded(partial(self.put, learner.run.id, learner.state))

    def put(self, run_id: str, state: State) -> None:
        """Write the run's state; what `state()` itself raises passes through."""
        try:
            checkpoint.save(self.folder, run_id, state())
        except OSError as error:
            self._miss(run_id, error.strerror or str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._miss(run_id, "not enough memory")
        else:
            self._written[run_id] = monotonic()
            self._missed.pop(run_id, None)
        self._last = monotonic()

    def _miss(self, run_id: str, why: str) -> None:
        self._missed[run_id] = why
        if not self._told:
            self._told = True
            self._note(
                f"a checkpoint could not be written: {why}; training goes on, and a "
                f"stop now would lose {self._unsaved_s(run_id):.0f} s"
            )

    def _unsaved_s(self, run_id: str) -> float:
        return monotonic() - self._written.get(run_id, self._started)

    def tell_losses(self) -> None:
        """Say, on stopping, what was not written and is to be done again."""
        if self._missed:
            lost = max(map(self._unsaved_s, self._missed))
            why = next(iter(self._missed.values()))
            self._note(
                f"the last checkpoint could not be written ({why}): up to {lost:.0f} s "
                "of training are done again"
            )
