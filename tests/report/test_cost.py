"""Size and speed against numbers worked out by hand."""

import pytest

from kdbench.report.cost import machine_name, size_table
from kdbench.report.sections import sections


def only(results):
    return sections(results)[0]


def texts(table, key):
    return {
        row.cells[0].value: table.cell(i, key).text for i, row in enumerate(table.rows)
    }


def students(make, label="kd", **sizes):
    found = {"parameters": 1000.0, "macs": 20_000.0, "size_bytes": 4000.0} | sizes
    return make.strategy(label, [80.0], measures={"top1": 80.0, **found})


def test_ratios_to_the_teacher(make):
    results = make.results(
        make.teacher(),
        *students(make),
        speed=[make.speed("big", 6.0), make.speed("small", 2.0)],
    )
    table = size_table(only(results))
    assert texts(table, "smaller") == {"big": "-", "small": "4.0x smaller"}
    assert texts(table, "faster") == {"big": "-", "small": "3.0x faster"}
    assert texts(table, "flops")["small"] == "40.0 k"
    assert texts(table, "parameters")["big"] == "4.00 k"
    assert texts(table, "latency_ms")["small"] == "2.00"
    assert table.notes == ("Speed on: Xeon, 2 threads, device cpu.",)


def test_missing_speed_is_a_dash_and_said(make):
    table = size_table(only(make.results(make.teacher(), *students(make))))
    assert texts(table, "latency_ms") == {"big": "-", "small": "-"}
    assert table.notes == ("Speed was not measured.",)


def test_speed_is_not_compared_between_machines(make):
    speed = [make.speed("big", 6.0), make.speed("small", 2.0, cpu="M3")]
    table = size_table(only(make.results(make.teacher(), *students(make), speed=speed)))
    assert texts(table, "faster")["small"] == "-"
    assert table.columns[-1].level == 0  # the machine's column is shown
    assert "M3" in texts(table, "machine")["small"]


def test_a_student_of_another_size_stands_apart(make):
    results = make.results(
        *students(make), *students(make, "scratch"), *students(make, "prune", macs=9.0)
    )
    table = size_table(only(results))
    assert [row.cells[0].value for row in table.rows] == [
        "small",
        "small as deployed by prune",
    ]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "unknown machine"),
        (
            {"cpu": "Xeon", "device": "cuda", "gpu": "H200", "threads": 1},
            "H200, Xeon, 1 thread, device cuda",
        ),
    ],
)
def test_machine_in_words(environment, name):
    assert machine_name(environment) == name
