"""A heat map, strategies by settings."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.report.plots.style import Plot
from kdbench.report.sections import Section


def heat_plots(sections: Sequence[Section]) -> list[Plot]:
    """Gains over kd of every strategy in every setting, from two settings on."""
    return []
