"""What training costs, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from kdbench.records import RMSE
from kdbench.report.sections import sections
from kdbench.report.terminal import fit
from kdbench.report.training_cost import cost_table, split_table


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


def curves(make, label, *by_seed, name="top1", **changes):
    """Runs with these curves, of 10 s; further costs and fields as given."""
    cost = {"train_s": 10.0} | changes.pop("cost", {})
    return [
        make.record(
            label, seed, curve[-1], curves={name: list(curve)}, cost=cost, **changes
        )
        for seed, curve in enumerate(by_seed)
    ]


def reached(make, *records):
    table = cost_table(only(make.results(*records)))
    return texts(table, "to_scratch_s"), texts(table, "to_scratch_epochs")


def test_time_to_what_scratch_ends_with(make):
    """Seed by seed: kd after 1 of 4 epochs of 10 s, and after 3; scratch passes it."""
    seconds, epochs = reached(
        make,
        *curves(make, "scratch", [10, 50, 60, 55], [10, 20, 40, 70]),
        *curves(make, "kd", [55, 50, 60, 90], [10, None, 71, 72]),
    )
    assert seconds == {"scratch": "8.75", "kd": "5.00"}
    assert epochs == {"scratch": "3.50", "kd": "2.00"}


def test_epochs_before_the_first_count(make):
    before = {"epochs_before": 4.0, "train_s": 16.0}
    seconds, epochs = reached(
        make,
        *curves(make, "scratch", [10, 50, 60, 55]),
        *curves(make, "kd", [20, 55, 60, 55], cost=before),
    )
    assert (seconds["kd"], epochs["kd"]) == ("12.0", "6.00")


def test_an_error_has_to_fall(make):
    seconds, _ = reached(
        make,
        *curves(make, "scratch", [9, 4, 3, 3.5], name="rmse", headline=RMSE),
        *curves(make, "kd", [3.6, 4, 3, 2], name="rmse", headline=RMSE),
    )
    assert seconds == {"scratch": "7.50", "kd": "7.50"}


def test_what_is_never_reached_is_said(make):
    seconds, epochs = reached(
        make,
        *curves(make, "scratch", [10, 55], [10, 55], [10, 55]),
        *curves(make, "worse", [10, 54], [10, 54]),
        *curves(make, "mixed", [10, 54], [55, 10], [10, 56]),
        *curves(make, "later", *([60, 60],) * 4)[3:],
    )
    assert seconds["worse"] == epochs["worse"] == "not reached"
    assert seconds["mixed"] == "in 2 of 3 seeds"
    assert seconds["later"] == "-"  # there is no scratch of this seed
    table = cost_table(only(make.results(*curves(make, "kd", [1, 2]))))
    assert texts(table, "to_scratch_s") == {"kd": "-"}


PARTS = {
    "train_s": 20.0,
    "own_s": 12.0,
    "data_s": 2.0,
    "teacher_s": 6.0,
    "student_s": 4.0,
    "adapters_s": 1.0,
    "loss_s": 0.5,
    "backward_s": 5.0,
    "optimiser_s": 1.0,
    "engine_s": 0.5,
    "evaluation_s": 3.0,
}


def test_seconds_per_epoch_by_part(make):
    """Four epochs, and one before them."""
    records = curves(make, "kd", [1, 2, 3, 4], cost=PARTS | {"epochs_before": 1.0})
    table = split_table(only(make.results(*records)))
    shown = {column.key: table.cell(0, column.key).value for column in table.columns}
    assert shown.pop("strategy") == "kd"
    assert shown.pop("epoch_s") == 4.0
    assert shown.pop("checkpoint_s") is None
    whole = ("train_s", "own_s")
    assert shown == {k: v / 5 for k, v in PARTS.items() if k not in whole}
    assert table.notes == ()
    share = cost_table(only(make.results(*records))).cell(0, "engine_share")
    assert share.text == "2.50"


def test_what_is_not_taken_apart_is_said(make):
    graphed = PARTS | {"graph_s": 2.0, "adapters_s": None}
    own_loop = {"own_s": 9.0, "student_s": None}
    results = make.results(
        *curves(make, "kd", [1, 2], cost=graphed),
        *curves(make, "born_again", [1, 2], cost=own_loop),
    )
    table = split_table(only(results))
    assert texts(table, "graph_s") == {"kd": "1.00", "born_again": "-"}
    assert texts(table, "adapters_s") == {"kd": "-", "born_again": "-"}
    assert [note.split()[0] for note in table.notes] == ["Graph:", "A"]


def test_a_compressed_student_has_no_epoch_of_its_own(make):
    """Its cost is that of two trainings, its curve that of the second."""
    run = {"compression": "half", "source": "a"}
    records = curves(make, "kd", [1, 2, 3, 4], cost=PARTS, run=run)
    results = make.results(*curves(make, "scratch", [1, 2, 3, 4]), *records)
    [label] = {record.run.label for record in records}
    assert texts(split_table(only(results)), "student_s")[label] == "-"
    assert texts(cost_table(only(results)), "to_scratch_s")[label] == "-"
    assert texts(cost_table(only(results)), "train_s")[label] == "20.0"


@pytest.mark.parametrize("energy", [None, 4_000.0])
def test_memory_and_energy(make, energy):
    """Energy has a column where some run has it; null is a dash, never 0."""
    cost = {"peak_memory_bytes": 41_704.0, "energy_j": energy, "company": 3.0}
    unknown = cost | {"peak_memory_bytes": None, "energy_j": None}
    results = make.results(
        *curves(make, "kd", [1, 2], cost=cost),
        *curves(make, "at", [1, 2], cost=unknown),
    )
    table = cost_table(only(results))
    assert texts(table, "peak_memory_bytes") == {"kd": "41.7 k", "at": "-"}
    assert texts(table, "company")["kd"] == "3"
    told = [note.startswith("Energy: of the GPU") for note in table.notes]
    assert any(told) == (energy is not None)
    assert "Energy" not in table.caption
    if energy is None:
        assert "energy_j" not in [column.key for column in table.columns]
    else:
        assert texts(table, "energy_j") == {"kd": "4,000", "at": "-"}


def test_the_terminal_keeps_what_matters(make):
    """Within 80 columns: the ratios, the seconds and the adapters."""
    records = curves(make, "scratch", [1, 2], cost=PARTS | {"train_shared_s": 9.0})
    shown = fit(cost_table(only(make.results(*records))), 80)
    keys = [column.key for column in shown.columns]
    assert keys[:4] == ["strategy", "relative", "relative_shared", "train_s"]
    assert "adapter_parameters" in keys
    assert "loop_s" not in keys
