"""Mean ranks with the critical difference, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.report.plots.style import Plot
from kdbench.report.sections import Section


def rank_plots(sections: Sequence[Section]) -> list[Plot]:
    """The critical-difference diagram and the performance profile."""
    return []
