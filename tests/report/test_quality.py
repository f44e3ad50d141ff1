"""The quality table: which columns, whose numbers, what is best; accuracy by class."""

from __future__ import annotations

import csv

import pytest

from kdbench.records import Headline
from kdbench.report import csv_files
from kdbench.report.document import build
from kdbench.report.tables import CSV_ONLY


def taught(make, label, several, **changes):
    """One record for each seed with these measures, beside a top-1 of 80."""
    run = {"teacher_runs": (make.teacher().id,)}
    return [
        make.record(
            label, seed, 80.0, run=run, measures={"top1": 80.0, **measures}, **changes
        )
        for seed, measures in enumerate(several)
    ]


@pytest.fixture
def results(make):
    teacher = make.teacher().model_copy(
        update={"measures": {"top1": 90.0, "nll": 0.5, "ece": 4.0, "top5": 99.0}}
    )
    scratch = [{"nll": 0.9, "ece": 2.0, "agreement": 70.0, "agreement_wrong": None}]
    kd = [
        {"nll": 0.7, "ece": 3.0, "agreement": 80.0, "teacher_kl": 0.25},
        {"nll": 0.6, "ece": 3.0, "agreement": 82.0, "teacher_kl": None},
    ]
    return make.results(
        teacher, *taught(make, "scratch", scratch), *taught(make, "kd", kd)
    )


def quality(results):
    return build(results).parts[0].table("quality")


def test_rows_begin_with_the_teacher_and_only_what_is_known_is_shown(results):
    table = quality(results)
    assert [row.cells[0].value for row in table.rows] == ["teacher", "scratch", "kd"]
    shown = [c.key for c in table.shown(CSV_ONLY - 1).columns]
    assert shown == ["strategy", "top5", "nll", "ece", "agreement", "teacher_kl"]
    assert [c.heading for c in table.columns if c.key == "nll"] == ["NLL (nats)"]
    assert table.cell(0, "nll").text == "0.500"
    assert table.cell(0, "agreement").text == "-"
    assert table.cell(1, "top5").value is None


def test_means_over_seeds_with_their_sd(results):
    table = quality(results)
    assert table.cell(2, "nll").value == pytest.approx(0.65)
    assert table.cell(2, "nll").text == "0.650 (0.071)"
    assert table.cell(2, "nll_sd").value == pytest.approx(0.05 * 2**0.5)
    assert table.cell(1, "nll").text == "0.900"
    assert table.cell(1, "nll_sd").value is None
    assert table.cell(2, "teacher_kl").text == "0.250"
    assert table.cell(2, "agreement").text == "81.00 (1.41)"


def test_the_best_of_each_column_is_marked_but_no_teacher(results):
    table = quality(results)
    best = {
        (row, key): table.cell(row, key).best
        for row in range(3)
        for key in ("nll", "ece", "agreement", "teacher_kl")
    }
    assert [where for where, is_best in best.items() if is_best] == [
        (1, "ece"),
        (2, "nll"),
        (2, "agreement"),
    ]


def test_a_compressed_student_is_never_the_best(make, results):
    run = {"teacher_runs": (make.teacher().id,), "compression": "int8"}
    small = make.record(
        "kd/int8", 0, 80.0, run=run, measures={"top1": 80.0, "nll": 0.1, "ece": 0.1}
    )
    table = quality(make.results(*results.records, small))
    labels = [row.cells[0].value for row in table.rows]
    assert labels[-1] == "kd/int8"
    best = {
        key: [label for i, label in enumerate(labels) if table.cell(i, key).best]
        for key in ("nll", "ece")
    }
    assert best == {"nll": ["kd"], "ece": ["scratch"]}


def test_further_measures_are_rounded_to_what_their_interval_tells(make):
    values = [(0.8, 700.0, 1204.0, 0.0012), (0.9, 702.5, 1204.0, 0.0011)]
    own = [
        dict(zip(("a", "b", "c", "d"), measured, strict=True)) for measured in values
    ]
    table = build(make.results(*taught(make, "kd", own))).parts[0].table("further")
    assert {key: table.cell(0, key).text for key in "abcd"} == {
        "a": "0.85 ± 0.64",
        "b": "701 ± 16",
        "c": "1204 ± 0",
        "d": "0.00115 ± 0.00064",
    }


def test_the_caption_says_bins_and_directions(results):
    caption = quality(results).caption
    assert "15 equal bins of the top-1 confidence, closed on the right" in caption
    assert "Lower is better for NLL, ECE and KL" in caption
    assert "validation split" in caption


def test_optional_measures_come_with_a_note(make, results):
    assert quality(results).notes == ()
    known = {"corruption": 50.0, "corruption_noise": 60.0, "cka": 0.75}
    found = quality(make.results(*taught(make, "kd", [known])))
    assert [c.title for c in found.shown(8).columns][1:] == [
        "Corrupted",
        "Noise",
        "CKA",
    ]
    assert found.cell(0, "corruption").text == "50.00"
    assert found.cell(0, "cka").text == "0.750"
    assert [note.partition(":")[0] for note in found.notes] == ["Corrupted", "CKA"]


def test_each_head_has_its_columns(make):
    headline = Headline(
        name="rmse_ink", title="RMSE (ink)", unit="", gain_unit="", better="lower"
    )
    measures = {"rmse_ink": 0.5, "top1_digit": 70.0, "ece_digit": 1.234}
    records = taught(make, "kd", [measures, measures], headline=headline)
    table = quality(make.results(*records))
    assert [c.heading for c in table.shown().columns] == ["Strategy", "ECE (digit) (%)"]
    assert table.cell(0, "ece_digit").text == "1.23 (0.00)"


def test_its_measures_are_in_no_other_table(make, results):
    assert build(results).parts[0].table("further") is None
    own = taught(make, "kd", [{"nll": 0.5, "margin": 3.0, "temperature_scaled": None}])
    table = build(make.results(*own)).parts[0].table("further")
    assert [c.key for c in table.columns] == ["strategy", "margin"]


def test_without_such_measures_there_is_no_table(make):
    assert quality(make.standard()) is None


def test_a_strategy_that_failed_has_no_row(make, results):
    [failed] = make.strategy("better", [None])
    table = quality(make.results(*results.records, failed))
    assert "better" not in [row.cells[0].value for row in table.rows]


def test_accuracy_by_class_is_a_data_file(make, results, tmp_path):
    lists = {"per_class_top1": [90.0, None, 70.5], "calibration_count": [1.0, 2.0]}
    several = taught(make, "kd", [{}, {}], lists=lists)
    document = build(make.results(*several))
    assert "classes" not in [table.key for table in document.parts[0].tables]
    written = csv_files.render(make.results(*several), tmp_path)
    [path] = [p for p in written if p.name.endswith("-classes.csv")]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[1] == {
        "strategy": "kd",
        "seed": "0",
        "head": "",
        "class": "1",
        "top1": "",
    }
    assert [row["top1"] for row in rows if row["seed"] == "1"] == ["90.0", "", "70.5"]
    assert not [p for p in csv_files.render(results, tmp_path) if "classes" in p.name]
