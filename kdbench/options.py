"""What `kdbench run` is told beside the suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run, none of which changes a result."""

    out: Path
    device: str
    data_dir: Path | None
    download: bool
    workers: int
    executor: str
    checkpoint_every_s: float
    retrain_teachers: bool = False
    threads: int | None = None
    """Of each process that trains; None is the rule by the models' size."""
    profile: bool = False
    speed: bool = True
    """Whether models that were not timed yet are timed when all training is over."""
    report: bool = True
    import_state: Path | None = None
    """A folder whose state is taken over first."""
    export_state: Path | None = None
    """A folder that the state is written to when the command ends."""
