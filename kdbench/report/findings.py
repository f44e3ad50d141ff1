"""What all settings together have shown, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.report.sections import Section


def findings(sections: Sequence[Section]) -> Iterator[str]:
    """The sentences that open the report."""
    yield from ()
