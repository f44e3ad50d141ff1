"""Every plot as SVG, PDF and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.report.document import build
from kdbench.report.plots.style import save
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/plots/<stem>.svg, .pdf and .png for every plot."""
    target = folder / "plots"
    target.mkdir(parents=True, exist_ok=True)
    document = build(results)
    document.draw()
    plots = [plot for group in document.plots.values() for plot in group]
    return [path for plot in plots for path in save(plot, target)]
