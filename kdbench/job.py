"""A job: a group, and all it needs to be trained in whatever process it is given to.

Self-contained and picklable: names are resolved through the plugins of that process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdbench.plan import Group

Emit = Callable[[tuple[Any, ...]], None]
"""Events: ("started", run), ("epoch", run, epoch, headline, value),
("record", record), ("note", text), ("profile", run, times); and of what other processes
do ("held", run, ids), ("elsewhere", record)."""


@dataclass(frozen=True)
class Job:
    """A group and all it needs to run anywhere. `needs` are the runs before it."""

    group: Group
    folder: Path
    data_dir: Path | None
    device: str
    threads: int
    plugin_files: tuple[Path, ...] = ()
    plugin_names: frozenset[str] | None = None
    """With the files what `Host(files=..., only=...)` takes in the process that
    trains, so that it has the plugins that were checked; None is all installed."""
    checkpoint_every_s: float = 60.0
    work: float = 1.0
    """Roughly what an epoch of one of its runs takes, to tell the time left."""
    early: Mapping[str, int] = field(default_factory=dict)
    """By run id the epochs that its phases take before the recipe's first."""
    needs: frozenset[str] = frozenset()
    anew: bool = False
    """Whether its runs are trained again, whatever record of them there is."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """By run id the digest of the record that was there before this command."""
    profile: bool = False
    measures: tuple[str, ...] = ()
    """Optional measures that were asked for."""

    @property
    def id(self) -> str:
        return self.group.id
