"""What benchmarks share: their modules by name, and the table at the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

# side.py is started as a script, and so finds its neighbours; tests find them likewise
sys.path.insert(0, str(Path(__file__).parent))

from rows import Row, table

ROWS = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def reached(request: pytest.FixtureRequest, benchmark) -> Callable[[Row], None]:
    """Put a row into the table and the JSON file, then hold it against its bar."""

    def put(row: Row, **more: object) -> None:
        facts = {**asdict(row), **more, "verdict": row.verdict}
        benchmark.extra_info.update(facts)
        request.config.stash[ROWS].append(row)
        print(f"\n{row.name}: {row._as(row.value)}, {row.verdict}")
        wanted = row._as(row.bar)
        assert row.reaches(row.bar), f"{row.name}: the bar is {wanted}"

    return put


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("speed bars")
    for line in table(rows):
        terminalreporter.write_line(line)
