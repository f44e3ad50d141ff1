"""report.html: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdbench import __version__
from kdbench.report.document import build
from kdbench.report.plots.style import Plot, inline
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/report.html."""
    document = build(results)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        document=document,
        plots=document.plots,
        overall=document.plots[""],
        svg=_svg,
        version=__version__,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return [path]


def _svg(plot: Plot) -> Markup:
    """The plot's SVG; matplotlib has escaped every text in it."""
    label = Markup(' aria-label="{}"').format(plot.alt)
    drawn = inline(plot).replace(' role="img"', f' role="img"{label}', 1)
    return Markup(drawn)  # noqa: S704  # escaped by matplotlib and the line above
