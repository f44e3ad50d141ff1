"""How plots look: one style, readable without colour, the same bytes every time."""

from __future__ import annotations

import base64
import html
import io
import re
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

INK = "#23272e"
"""Text, axes and the scratch line; the page replaces it by its own text colour."""
FAINT = "#8f96a0"
"""Everything that is there for comparison only."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's colour-blind-safe palette; each comes with its own dash or marker."""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))

TIP = "tip-"
BACKGROUND = '<rect width="100%" height="100%" fill="white"/>'

SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "kdbench",
    "figure.dpi": 100,
}


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot to be drawn: `stem` names its files, `alt` says what it shows.

    `kind` is the word for what is drawn, by which pages choose: "accuracy", "gains",
    "curves", "fidelity", "calibration", "tradeoff", "heat", "ranks", "profile".
    """

    kind: str
    stem: str
    title: str
    alt: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Drawn:
    """A plot in three formats: the text of an SVG without background, and two files."""

    svg: str
    pdf: bytes
    png: bytes


def tip(artist: Artist, text: str) -> None:
    """Give a mark the words that a page shows when one points at it.

    One artist, one text: draw marks that have words of their own one by one.
    """
    coded = base64.urlsafe_b64encode(printable(text).encode()).decode()
    artist.set_gid(TIP + coded.rstrip("="))


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside this context."""
    import matplotlib

    with (
        matplotlib.rc_context(SETTINGS),  # type: ignore[arg-type]  # str keys are fine
        warnings.catch_warnings(),
    ):
        # a script that the font lacks: an SVG has the text, the others show boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


_drawn: WeakKeyDictionary[Plot, Drawn] = WeakKeyDictionary()


def drawn(plot: Plot) -> Drawn:
    """The plot, drawn once for all who show it."""
    if plot not in _drawn:
        _drawn[plot] = _draw(plot)
    return _drawn[plot]


def is_drawn(plot: Plot) -> bool:
    """Whether it is at hand."""
    return plot in _drawn


def remember(plot: Plot, found: Drawn) -> None:
    """Keep what another process has drawn."""
    _drawn[plot] = found


def _draw(plot: Plot) -> Drawn:
    """Its layout is found once, and each format drawn once: `savefig` does so twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with styled():
        figure = plot.draw()
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
            figure.set_layout_engine("none")
        png, pdf, svg = io.BytesIO(), io.BytesIO(), io.StringIO()
        figure.set_facecolor("white")
        figure.set_dpi(160)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(png, metadata={"Software": None})
        canvas = FigureCanvasPdf(figure)
        canvas.print_pdf(pdf, metadata={"CreationDate": None})
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_facecolor("none")
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(svg, metadata={"Date": None})
    return Drawn(svg.getvalue(), pdf.getvalue(), png.getvalue())


def save(plot: Plot, folder: Path) -> list[Path]:
    """Write `folder`/<stem>.svg, .pdf and .png."""
    stem, found = folder / plot.stem, drawn(plot)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "pdf", "png")]
    white = re.sub(r"(<svg[^>]*>)", rf"\1\n{BACKGROUND}", found.svg, count=1)
    paths[0].write_text(white, encoding="utf-8")
    paths[1].write_bytes(found.pdf)
    paths[2].write_bytes(found.png)
    return paths


def inline(plot: Plot) -> str:
    """The plot as an SVG element for a page: own ids, the page's ink, no background.

    A mark with a `tip` has its text in `data-tip`, escaped.
    """
    text = drawn(plot).svg
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::xlink)?|version)="[^"]*"', "", text, count=3)
    width = re.search(r'<svg[^>]*?width="([\d.]+)pt"', text)
    points = float(width.group(1)) if width else 600.0
    text = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(rf'\bid="{TIP}([\w-]+)"', _tip_of, text)
    prefix = f"{plot.stem}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace('href="#', f'href="#{prefix}').replace(
        "url(#", f"url(#{prefix}"
    )
    text = text.replace(INK, "currentColor")
    opening = f'<svg class="plot" role="img" style="max-width:{points * 4 / 3:.0f}px"'
    return opening + text.removeprefix("<svg")


def _tip_of(found: re.Match[str]) -> str:
    coded = found.group(1)
    text = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
    return f'data-tip="{html.escape(text)}"'


def printable(text: str) -> str:
    """Text that every format can hold: a space for control characters and the like."""
    return "".join(c if c.isprintable() else " " for c in text)


def shorten(label: str, length: int = 34) -> str:
    """A label that fits beside an axis, in one line: a long one loses its middle.

    Labels of one method often differ only in their last setting.

    >>> shorten("kd[temperature=4,alpha=0.9]", 14)
    'kd[temp…a=0.9]'
    """
    label = printable(label)
    if len(label) <= length:
        return label
    tail = (length - 1) // 2
    return label[: length - 1 - tail] + "…" + label[-tail:]


def floor(values: Iterable[float], least: float = 1.0) -> float:
    """Where a plot of these values ends: what lies below would squeeze the rest.

    median - 3 * (maximum - median), `least` at least: only collapsed runs lie below.

    >>> floor([96.0, 95.0, 94.0, 10.0, 97.0])
    89.0
    """
    known = list(values)
    middle = statistics.median(known)
    return middle - 3 * max(max(known) - middle, least)


def spread_out(positions: list[float], gap: float) -> list[float]:
    """Positions moved as little as needed to be `gap` apart, in the given order.

    >>> spread_out([1.0, 1.0, 5.0], 1.0)
    [0.5, 1.5, 5.0]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[list[int]] = []
    centres: list[float] = []
    for i in order:
        block, centre = [i], positions[i]
        while blocks and (
            centre - gap * (len(block) - 1) / 2
            < centres[-1] + gap * (len(blocks[-1]) + 1) / 2
        ):
            block = blocks.pop() + block
            centres.pop()
            centre = sum(positions[k] for k in block) / len(block)
        blocks.append(block)
        centres.append(centre)
    moved = list(positions)
    for block, centre in zip(blocks, centres, strict=True):
        for place, i in enumerate(block):
            moved[i] = centre + gap * (place - (len(block) - 1) / 2)
    return moved
