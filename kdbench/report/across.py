"""Tables over several settings: accuracy, ranks, wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.report.sections import Section
from kdbench.report.tables import Table


def across_tables(sections: Sequence[Section]) -> Iterator[Table]:
    """Accuracy of strategies by settings, mean ranks, wins, ties and losses."""
    yield from ()
