"""Fidelity to the teacher against accuracy."""

from __future__ import annotations

from kdbench.report.plots.style import Plot
from kdbench.report.sections import Section


def fidelity_plots(section: Section) -> list[Plot]:
    """Agreement with the teacher against the headline, where it was measured."""
    return []
