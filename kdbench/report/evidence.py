"""The tables of tests: over seeds, over test items, and what the seeds could show."""

from __future__ import annotations

from kdbench.report.sections import Section
from kdbench.report.tables import Table


def evidence_table(section: Section) -> Table | None:
    """Every strategy against kd and scratch, by seeds and by test items."""
    return None


def detectable_table(section: Section) -> Table | None:
    """The smallest difference to kd that the seeds at hand could have shown."""
    return None
