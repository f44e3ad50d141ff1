"""What tests of plots look at: marks by their words, and what they show."""

from __future__ import annotations

import base64
import itertools

import pytest
from matplotlib.colors import to_rgba

from kdbench.report.plots.style import TIP, styled
from kdbench.report.sections import sections


class Look:
    """Sections to draw, and the parts of a figure."""

    def __init__(self, make):
        self.make = make

    def settings(self, values, seeds=3, **changes):
        """A section for each setting: label -> the mean in each, None for no run."""
        records = []
        count = max(map(len, values.values()))
        for place, (label, means) in itertools.product(range(count), values.items()):
            if means[place] is None:
                continue
            run = {"pair": f"big-small{place}"}
            records += [
                self.make.record(
                    label,
                    seed,
                    means[place] + self.wobble(label, seed),
                    run=run,
                    **changes,
                )
                for seed in range(seeds)
            ]
        return sections(self.make.results(*records))

    def wobble(self, label, seed):
        """Something for each seed that adds up to zero over three of them."""
        return 0.1 * (len(label) % 3 + 1) * (seed - 1)

    def draw(self, plot):
        with styled():
            return plot.draw()

    def marks(self, figure):
        """Words of a mark -> the mark itself, of all marks that have words."""
        found = {}
        for artist in figure.findobj():
            gid = artist.get_gid() or ""
            if gid.startswith(TIP):
                coded = gid.removeprefix(TIP)
                padded = coded + "=" * (-len(coded) % 4)
                text = base64.urlsafe_b64decode(padded).decode()
                assert text not in found
                found[text] = artist
        return found

    def of(self, figure, start):
        """The mark whose words begin so, and they."""
        known = self.marks(figure).items()
        ((words, mark),) = [
            (words, mark) for words, mark in known if words.startswith(start)
        ]
        return mark, words

    def at(self, mark):
        """Where a marker stands."""
        (x,), (y,) = mark.get_data()
        return x, y

    def filled(self, mark):
        """Whether a marker is solid; its edge is always seen.

        An "auto" edge would be as clear as a clear face.
        """
        assert to_rgba(mark._markeredgecolor)[3] == 1
        return to_rgba(mark.get_markerfacecolor())[3] == 1

    def bar_at(self, axes, y):
        """The ends of the interval drawn in a row; None where there is none."""
        lines = [path for bars in axes.collections for path in bars.get_segments()]
        found = [sorted(line[:, 0]) for line in lines if list(line[:, 1]) == [y, y]]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture
def look(make):
    return Look(make)
