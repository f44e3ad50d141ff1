"""report.tex and report.bib: the paper-style report, for those who edit it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write it into `folder`."""
    return []
