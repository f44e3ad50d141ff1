"""The table of speed by runtime, against timings written by hand."""

from __future__ import annotations

import pytest

from kdbench.records import Timing
from kdbench.report.document import build
from kdbench.report.sections import sections
from kdbench.report.speed import speed_table

EAGER = Timing(
    runtime="eager",
    precision="float32",
    threads=1,
    batch=64,
    latency_ms=(0.19, 0.2, 0.25),
    throughput=(19_000.0, 20_000.0, 21_000.0),
    repeats=20,
    difference=0.0,
    spread=0.3,
    others=0.02,
    noisy=True,
)
ONNX = EAGER.model_copy(
    update={
        "runtime": "onnx",
        "threads": 2,
        "batch": 1024,
        "latency_ms": (0.029, 0.03, 0.031),
        "throughput": (390_000.0, 400_000.0, 410_000.0),
        "difference": 1.234e-7,
        "size_bytes": 17_852,
        "spread": 0.05,
        "noisy": False,
    }
)
NONE = Timing(runtime="eager", precision="int8", threads=1, reason="nothing dense")


@pytest.fixture
def table_of(make):
    def table(*speed):
        return speed_table(sections(make.standard(speed=list(speed)))[0])

    return table


@pytest.fixture
def timed(make):
    def record(model, *timings, governor=None, **environment):
        found = {"timings": list(timings), "governor": governor}
        return make.speed(model, 1.0, **environment).model_copy(update=found)

    return record


def texts(table, row, *keys):
    return [table.cell(row, key).text for key in keys]


def test_every_form_has_a_row_with_its_numbers(table_of, timed):
    table = table_of(timed("small", EAGER, ONNX))
    assert len(table.rows) == 2
    keys = ("model", "runtime", "precision", "threads", "latency_ms", "batch")
    assert texts(table, 0, *keys) == ["small", "eager", "float32", "1", "0.200", "64"]
    assert texts(table, 1, *keys) == [
        "small",
        "onnx",
        "float32",
        "2",
        "0.0300",
        "1,024",
    ]
    keys = ("latency_quartiles", "throughput", "throughput_quartiles")
    assert texts(table, 0, *keys) == ["0.190 - 0.250", "20,000", "19,000 - 21,000"]
    keys = ("difference", "size_bytes", "noise")
    assert texts(table, 0, *keys) == ["0", "-", "noisy"]
    assert texts(table, 1, *keys) == ["1e-07", "17.9 k", "-"]
    assert table.cell(1, "latency_ms_q1").value == 0.029
    assert table.cell(1, "throughput_q3").value == 410_000
    assert (table.cell(1, "repeats").value, table.cell(1, "others").value) == (20, 0.02)


def test_what_noisy_means_is_said_where_a_row_is(table_of, timed):
    [note] = [n for n in table_of(timed("small", EAGER, ONNX)).notes if "Noisy" in n]
    assert "1 of 2 rows" in note
    assert "30%" in note
    assert "2%" in note
    quiet = table_of(timed("small", ONNX)).notes
    assert not any("Noisy" in note for note in quiet)


def test_what_has_no_times_is_a_note_and_no_row(table_of, timed):
    table = table_of(timed("big", EAGER, NONE), timed("small", NONE, EAGER, NONE))
    assert [row.cells[0].text for row in table.rows] == ["big", "small"]
    assert "No eager int8 of big, small: nothing dense." in table.notes
    assert sum("nothing dense" in note for note in table.notes) == 1


def test_machines_have_rows_apart_and_are_named(table_of, timed):
    here, there = timed("small", EAGER), timed("small", ONNX, cpu="M3", device="mps")
    table = table_of(here, there)
    machines = dict(texts(table, i, "runtime", "machine") for i in (0, 1))
    assert machines == {"eager": "Xeon, device cpu", "onnx": "M3, device mps"}
    assert "machine" in [column.key for column in table.shown().columns]
    assert sum(note.startswith("Times on:") for note in table.notes) == 2
    alone = table_of(here)
    assert "machine" not in [column.key for column in alone.shown().columns]


def test_the_governor_is_named(table_of, timed):
    notes = table_of(timed("small", EAGER, governor="powersave")).notes
    assert "Times on: Xeon, device cpu; frequency governor: powersave." in notes
    notes = table_of(timed("small", EAGER)).notes
    assert "Times on: Xeon, device cpu; frequency governor: unknown." in notes


def test_there_is_no_table_without_timings(table_of, make, timed):
    assert table_of() is None
    assert table_of(make.speed("small", 2.0)) is None
    document = build(make.standard(speed=[timed("small", EAGER)]))
    assert document.parts[0].table("speed").title == "Speed by runtime"
    assert build(make.standard()).parts[0].table("speed") is None
