"""The size table: a run's own sizes, and those of its architecture beside its speed."""

from __future__ import annotations

from kdbench.report.cost import size_table
from kdbench.report.sections import sections

SIZES = {
    "size_bf16_bytes": 8_200.0,
    "size_int8_bytes": 4_300.0,
    "activation_bytes": 7_232.0,
}


def cells(table, row):
    keys = [column.key for column in table.columns]
    return dict(zip(keys, table.rows[row].cells, strict=True))


def sized(speed):
    return speed.model_copy(update={"measures": speed.measures | SIZES})


def test_every_size_stands_in_its_column(make):
    teacher = make.teacher()
    own = teacher.measures | {"parameters_total": 4_050.0}
    teacher = teacher.model_copy(update={"measures": own})
    [section] = sections(
        make.results(
            teacher,
            *make.strategy("scratch", [80.0]),
            speed=[sized(make.speed("big", 6.0))],
        )
    )
    big = cells(size_table(section), 0)
    wanted = {"parameters": 4_000.0, "parameters_total": 4_050.0, **SIZES}
    assert {key: big[key].value for key in wanted} == wanted
    assert (big["macs"].value, big["flops"].value) == (80_000.0, 160_000.0)
    assert big["activation_bytes"].text == "7.23 k"


def test_a_student_that_was_timed_as_trained_has_its_own(make):
    found = {"top1": 80.0, "parameters": 10.0, "latency_ms": 1.0, **SIZES}
    [section] = sections(make.results(*make.strategy("kd", [80.0], measures=found)))
    small = cells(size_table(section), 0)
    assert {key: small[key].value for key in SIZES} == SIZES


def test_what_was_not_measured_is_a_dash_never_0(make):
    records = [make.teacher(), *make.strategy("kd", [80.0])]
    speed = [make.speed("big", 6.0)]  # from before these were measured
    [section] = sections(make.results(*records, speed=speed))
    table = size_table(section)
    for row in range(len(table.rows)):
        found = cells(table, row)
        for key in ("parameters_total", *SIZES):
            assert (found[key].value, found[key].text) == (None, "-")
