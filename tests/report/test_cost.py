"""Cost, size and speed against numbers worked out by hand."""

import pytest

from kdbench.report.cost import cost_table, machine_name, size_table
from kdbench.report.sections import sections


def only(results):
    return sections(results)[0]


def texts(table, key):
    return {
        row.cells[0].value: table.cell(i, key).text for i, row in enumerate(table.rows)
    }


def costs(make, label, seconds, **changes):
    return [
        record.model_copy(update={"cost": {"train_s": s, "train_shared_s": s / 2}})
        for record, s in zip(
            make.strategy(label, [80.0] * len(seconds), **changes), seconds, strict=True
        )
    ]


def test_train_time_is_the_mean_of_the_paired_ratios(make):
    """kd takes 2x and 4x scratch's time: 3x, not the ratio of the means (3.33x)."""
    results = make.results(
        *costs(make, "scratch", [10.0, 20.0]), *costs(make, "kd", [20.0, 80.0])
    )
    table = cost_table(only(results))
    assert texts(table, "relative") == {"scratch": "1.00x", "kd": "3.00x"}
    assert texts(table, "train_s") == {"scratch": "15.0", "kd": "50.0"}
    assert texts(table, "teacher_forwards") == {"scratch": "-", "kd": "-"}
    assert texts(table, "adapter_parameters")["kd"] == "-"


def test_times_are_compared_within_one_machine_only(make):
    elsewhere = {"cpu": "M3", "device": "mps"}
    results = make.results(
        *costs(make, "scratch", [10.0]),
        *costs(make, "kd", [20.0], environment=elsewhere),
    )
    table = cost_table(only(results))
    assert texts(table, "relative")["kd"] == "-"
    assert texts(table, "train_s")["kd"] == "20.0"
    assert any("2 machines" in note for note in table.notes)


def test_zero_seconds_and_no_scratch_do_not_crash(make):
    results = make.results(*costs(make, "scratch", [0.0]), *costs(make, "kd", [20.0]))
    assert texts(cost_table(only(results)), "relative")["kd"] == "-"
    alone = make.results(*costs(make, "kd", [20.0]))
    assert texts(cost_table(only(alone)), "relative") == {"kd": "-"}


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


def test_epochs_before_the_recipes_are_said(make):
    """Who pre-trains or goes through generations, and for how long."""
    early = {"ab": 30, "ft": 30, "born_again": 60, "kd": 0}
    records = [
        make.record(label, 0, 80.0, cost={"train_s": 1.0, "epochs_before": count})
        for label, count in early.items()
    ]
    table = cost_table(only(make.results(*records)))
    [note] = [note for note in table.notes if "before" in note]
    assert note.endswith("charged: ab, ft: 30 epochs; born_again: 60 epochs.")
    assert texts(table, "epochs_before")["born_again"] == "60"
