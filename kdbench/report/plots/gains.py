"""Forest plots of the paired differences to kd and to scratch."""

from __future__ import annotations

from kdbench.report.plots.style import Plot
from kdbench.report.sections import Section


def gain_plots(section: Section) -> list[Plot]:
    """Differences with intervals, where some pair of seeds is there."""
    return []
