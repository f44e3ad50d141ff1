"""Reliability diagrams."""

from __future__ import annotations

from kdbench.report.plots.style import Plot
from kdbench.report.sections import Section


def calibration_plots(section: Section) -> list[Plot]:
    """Confidence against accuracy, where runs hold the bins."""
    return []
