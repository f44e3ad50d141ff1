"""One plot of several, and the marks of a figure by their words."""

from __future__ import annotations

import base64

from kdbench.report.plots.style import TIP, styled


def only(plots):
    (plot,) = plots
    return plot


def the(plots, end):
    return only([plot for plot in plots if plot.stem.endswith(end)])


def marks(figure):
    """Words of a mark -> the artists that have them."""
    found = {}
    for artist in figure.findobj(lambda a: str(a.get_gid()).startswith(TIP)):
        coded = artist.get_gid().removeprefix(TIP)
        words = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
        found.setdefault(words, []).append(artist)
    return found


def mark(figure, start):
    """The artist whose words start so; it must be one."""
    return only([a for words, a in marks(figure).items() if words.startswith(start)])[0]


def draw(plot):
    with styled():
        return plot.draw()


def texts(figure):
    return [
        text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))
    ]


def priced(make, prices, **changes):
    """scratch, kd and others whose training takes this many seconds, by seed."""
    return [
        record.model_copy(update={"cost": {"train_s": seconds}})
        for label, (values, times) in prices.items()
        for record, seconds in zip(
            make.strategy(label, values, **changes), times, strict=True
        )
    ]
