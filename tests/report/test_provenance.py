"""Where the numbers come from: times, environments, records without a checksum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdbench.report import provenance
from kdbench.report.document import build


def finished(make, *times):
    records = [
        record.model_copy(update={"finished_at": time})
        for record, time in zip(
            make.strategy("scratch", [80.0] * len(times)), times, strict=True
        )
    ]
    return dict(build(make.results(*records)).facts)["Finished between"]


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        (
            ("2026-11-21T20:57:54.403000+00:00", "2026-11-21T23:35:32+00:00"),
            "2026-11-21 20:57 UTC and 2026-11-21 23:35 UTC",
        ),
        (("2026-11-22T00:30:00+02:00",), "2026-11-21 22:30 UTC"),
        (
            ("2026-11-21T20:57:54+00:00", "2026-11-21T20:57:59+00:00"),
            "2026-11-21 20:57 UTC",
        ),
        (("2026-11-21T20:57:54.1",), "2026-11-21T20:57:54.1"),
    ],
)
def test_times_are_shown_to_the_minute_in_utc(make, times, shown):
    assert finished(make, *times) == shown


def test_a_time_that_cannot_be_read_stays_as_it_is():
    record_time = "yesterday, 3 <b>o'clock</b>"
    assert provenance._minute(record_time) == record_time


def test_environments_are_those_of_runs_that_ran(make):
    ran = {"cpu": "Xeon", "threads": 1}
    records = [
        *make.strategy("scratch", [80.0, 81.0], environment=ran),
        *make.strategy("kd", [None], environment=ran),
        make.record("x", 0, None, status="skipped", environment={"threads": 0}),
    ]
    assert [record.status for record in records].count("failed") == 1
    tables = {t.key: t for t in build(make.results(*records)).provenance}
    rows = tables["environments"].rows
    assert [[cell.text for cell in row.cells] for row in rows] == [
        ["3", "cpu Xeon; threads 1"]
    ]


def test_records_without_a_checksum_are_counted(make):
    results = replace(make.standard(), unsealed=3)
    assert dict(build(results).facts)["Records without a checksum"] == "3"
