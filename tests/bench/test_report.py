"""Results at scale: 10,000 records, loaded and reported, each in a fresh process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import generated
import pytest
from rows import Row

from kdbench.store import write_record

LOAD_BAR_S, REPORT_BAR_S = 3, 60
LOAD_ROUNDS = 5
LOAD = (
    "import sys, time; from pathlib import Path; from kdbench.store import load;"
    "started = time.perf_counter(); found = load([Path(sys.argv[1])]);"
    "print(len(found.records), time.perf_counter() - started)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("records")
    for record in (*generated.records(), *generated.speeds()):
        write_record(where, record)
    return where


def load_seconds(folder):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folder], check=True, capture_output=True, text=True
    )
    count, seconds = done.stdout.split()
    assert int(count) > 10_000
    return float(seconds)


def report_seconds(folder, target):
    started = time.perf_counter()
    command = [sys.executable, "-m", "kdbench.cli", "report", folder, "--to", target]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


@pytest.mark.benchmark(group="report")
def test_load_ten_thousand_records(reached, benchmark, folder):
    seconds = statistics.median(load_seconds(folder) for _ in range(LOAD_ROUNDS))
    benchmark.pedantic(load_seconds, args=(folder,), rounds=1)
    reached(
        Row(
            name="load 10,000 records of 240 epochs",
            value=seconds,
            bar=LOAD_BAR_S,
            kind="amount",
            better="lower",
            ours=seconds,
            unit="s",
            pairs=LOAD_ROUNDS,
        )
    )


@pytest.mark.benchmark(group="report")
def test_report_ten_thousand_records(reached, benchmark, folder, tmp_path):
    """All formats: tables, plots, page, paper; 13 settings x 55 strategies x 14."""
    seconds = benchmark.pedantic(
        report_seconds, args=(folder, tmp_path / "r"), rounds=1
    )
    reached(
        Row(
            name="report on them in every format, loading included",
            value=seconds,
            bar=REPORT_BAR_S,
            kind="amount",
            better="lower",
            ours=seconds,
            unit="s",
        )
    )
