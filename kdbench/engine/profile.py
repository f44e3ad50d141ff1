"""A look at a few steps, operation by operation, as a Chrome trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from kdbench.engine.learner import Learner

SKIPPED, WARMUP, RECORDED = 3, 1, 4
"""Steps: the first ones allocate, and one lets the profiler itself settle."""


@contextmanager
def profiled(
    learners: Sequence[Learner],
    path: Path,
    device: torch.device,
    stop: Callable[[], bool],
    tell: Callable[[Learner], None],
) -> Iterator[Callable[[], bool]]:
    """Training with a Chrome trace of some steps in `path`; `tell` hears of the end.

    Yields `stop`, which the training asks after every step.
    """
    for learner in learners:
        learner.trace.profiled = True
    try:
        with _recorded(path, device) as step_ended:
            yield lambda: step_ended() or stop()
    finally:
        for learner in learners:
            tell(learner)


@contextmanager
def _recorded(path: Path, device: torch.device) -> Iterator[Callable[[], None]]:
    """Record a few steps into `path`; yields what to call after each step.

    Open the file in chrome://tracing or ui.perfetto.dev.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def keep(recorded: profile) -> None:
        with suppress(OSError, RuntimeError):  # a trace less; no run is to suffer
            path.parent.mkdir(parents=True, exist_ok=True)
            recorded.export_chrome_trace(str(path))

    with profile(
        activities=activities,
        schedule=schedule(wait=SKIPPED, warmup=WARMUP, active=RECORDED, repeat=1),
        on_trace_ready=keep,
    ) as recording:
        yield recording.step
