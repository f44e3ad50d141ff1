"""Published numbers beside ours: what a verdict claims, and where it is shown."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kdbench.api import UserError
from kdbench.cli import app
from kdbench.records import RMSE, Recipe
from kdbench.report import BUILTIN, write
from kdbench.report.against import VERDICTS, against, verdict
from kdbench.report.document import build
from kdbench.report.terminal import print_tables
from kdbench.stats import interval
from kdbench.store import write_record

FIELD = Recipe(crop_padding=4, flip=True)


@pytest.fixture
def cifar(make, monkeypatch):
    """Builds results of resnet56-resnet20 on cifar100, taught by a teacher at 72.5."""

    def results(values, recipe=FIELD, **run):
        monkeypatch.setattr(make, "recipe", recipe)
        place = {"dataset": "cifar100", "pair": "resnet56"}
        models = {"students": ("resnet56",), "teachers": ()}
        teacher = make.record("teacher", 0, 72.5, run={**place, **models})
        place = {"dataset": "cifar100", "pair": "resnet56-resnet20"}
        runs = {"teacher_runs": (teacher.id,), "teachers": ("resnet56",), **place}
        students = [
            make.record(
                label, seed, top1, run={**runs, "params": {"label": label}, **run}
            )
            for label, tops in values.items()
            for seed, top1 in enumerate(tops)
        ]
        return make.results(teacher, *students)

    return results


VALUES = {
    "scratch": [69.0, 69.2],  # 69.1 ± 1.27
    "kd": [70.0, 70.5, 71.0],  # 70.5 ± 1.24
    "kd[temperature=2]": [70.6, 70.7],
    "fitnet": [70.1, 70.2, 70.0],  # 70.1 ± 0.25
    "dkd": [71.2, 71.3, 71.4],  # 71.3 ± 0.25
    "at": [70.5],
    "rkd": [None],
    "mlkd": [72.1, 72.3],
    "label_smoothing": [69.0, 69.5],
}


def compared(results):
    """Strategy -> verdict, and the table."""
    table = build(against(results, "published")).parts[0].table("published")
    rows = {row.cells[0].value: i for i, row in enumerate(table.rows)}
    return {n: table.cell(i, "verdict").value for n, i in rows.items()}, table


# --- the verdict ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "theirs", "same_recipe", "says"),
    [
        ([69.0, 70.0, 71.0], 70.5, True, "reproduced"),
        ([69.0, 70.0, 71.0], 67.5, True, "higher"),  # the half-width is 2.48
        ([69.0, 70.0, 71.0], 67.6, True, "reproduced"),
        ([69.0, 70.0, 71.0], 72.5, True, "lower"),
        ([70.0, 70.0], 70.0, True, "reproduced"),
        ([70.0], 70.0, True, "one seed: unknown"),
        ([69.0, 70.0, 71.0], 70.0, False, "other recipe"),
        ([70.0], 70.0, False, "other recipe"),
    ],
)
def test_verdict(values, theirs, same_recipe, says):
    assert verdict(interval(values), theirs, same_recipe=same_recipe) == says
    assert says in VERDICTS


def test_a_published_cell_without_ours_is_not_run():
    assert verdict(None, 70.0, same_recipe=True) == "not run"


def test_verdicts_of_a_report(cifar):
    """Published: fitnet 69.21, dkd 71.97, kd 70.66, scratch 69.06."""
    verdicts, table = compared(cifar(VALUES))
    assert list(verdicts)[:3] == ["teacher", "scratch", "kd"]
    assert verdicts["scratch"] == verdicts["kd"] == "reproduced"
    assert verdicts["fitnet"] == "higher"
    assert verdicts["dkd"] == "lower"
    assert verdicts["teacher"] == verdicts["at"] == "one seed: unknown"
    assert verdicts["rkd"] == "no result"
    assert verdicts["crd"] == "not run"
    assert verdicts["mlkd"] == "other recipe"  # 480 epochs there
    assert not {"kd[temperature=2]", "label_smoothing", "MLKD+LS", ""} & set(verdicts)
    notes = " ".join(table.notes)
    assert "Verdicts: 2 reproduced, 1 higher, 1 lower, 2 one seed" in notes
    assert "not compared: kd[temperature=2]." in notes
    assert "Lower than a best epoch (dkd)" in notes
    assert "No published number for label_smoothing." in notes
    assert "lr 0.025 for mlkd" in notes


def test_a_variant_alone_does_not_stand_for_the_strategy(cifar):
    verdicts, _ = compared(cifar({"kd[temperature=2]": [70.6, 70.7]}))
    assert verdicts["kd"] == "not run"


def test_another_recipe_is_said_and_judges_nothing(cifar):
    recipe = FIELD.model_copy(update={"epochs": 30, "flip": False})
    verdicts, table = compared(cifar(VALUES, recipe))
    judged = {v for n, v in verdicts.items() if n in VALUES and n != "rkd"}
    assert judged == {"other recipe"}
    assert verdicts["teacher"] == "other recipe"
    [note] = [n for n in table.notes if "RepDistiller" in n]
    assert "epochs 30 (theirs 240), flip no (theirs yes)" in note
    assert "not comparable" in note


def test_other_numbers_have_a_table_of_their_own(cifar):
    part = build(against(cifar(VALUES), "published")).parts[0]
    table = part.table("elsewhere")
    rows = [[cell.value for cell in row.cells[:4]] for row in table.rows]
    assert ["kd", 70.66, "mdistiller", "best test epoch"] in rows
    assert ["MLKD+LS", 72.33, "logit-standardization-KD", "best test epoch"] in rows
    # all of RepDistiller's but CC, which there is another loss than ours
    assert [row[0] for row in rows if row[2] == "RepDistiller"] == ["CC"]


# --- the report ----------------------------------------------------------------------


def test_the_accuracy_table_has_a_column_of_its_own(cifar):
    """Beside ours, marked by source, never marked best; ours stay ours."""
    table = build(cifar(VALUES)).parts[0].table("accuracy")
    rows = {row.cells[0].value: i for i, row in enumerate(table.rows)}
    assert table.cell(rows["kd"], "published").text == "70.66 a"
    assert table.cell(rows["teacher"], "published").value == 72.34
    assert table.cell(rows["dkd"], "published_source").value == "mdistiller"
    assert table.cell(rows["dkd"], "published_epoch").value == "best test epoch"
    assert table.cell(rows["kd[temperature=2]"], "published").text == "-"
    assert table.cell(rows["kd"], "top1").value == pytest.approx(70.5)
    assert not any(table.cell(i, "published").best for i in rows.values())
    [note] = [n for n in table.notes if n.startswith("Published:")]
    assert "a RepDistiller, last epoch; b logit-standardization-KD, best" in note
    assert "crd" not in rows


def test_no_published_numbers_no_column(make):
    columns = {c.key for c in build(make.standard()).parts[0].table("accuracy").columns}
    assert "published" not in columns
    part = build(against(make.standard(), "published")).parts[0]
    assert part.table("published") is None
    assert part.table("elsewhere") is None


def test_another_measure_has_no_published_numbers(cifar):
    records = [
        record.model_copy(update={"headline": RMSE, "measures": {"rmse": 1.0}})
        for record in cifar(VALUES).records
        if record.status == "finished"
    ]
    results = dataclasses.replace(cifar(VALUES), records=records)
    part = build(against(results, "published")).parts[0]
    assert part.table("published") is None
    assert "published" not in {c.key for c in part.table("accuracy").columns}


def test_tables_appear_only_when_asked_for(cifar):
    part = build(cifar(VALUES)).parts[0]
    assert part.table("published") is None
    assert build(cifar(VALUES)).comparison == ""


def test_every_format_has_the_comparison(cifar, tmp_path):
    results = against(cifar(VALUES), "published")
    write(results, tmp_path, BUILTIN)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Against published numbers" in text
        assert "Of 21 published numbers: 2 reproduced" in text
        assert "Other published numbers" in text
    file = tmp_path / "csv/cifar100-resnet56-resnet20-published.csv"
    rows = {r["strategy"]: r for r in csv.DictReader(io.StringIO(file.read_text()))}
    assert rows["kd"]["published"] == "70.66"
    assert rows["kd"]["verdict"] == "reproduced"
    assert float(rows["kd"]["half_width"]) == pytest.approx(1.2421, abs=1e-4)
    assert rows["crd"]["top1"] == ""


@pytest.mark.parametrize("width", [40, 80, 110, 200])
def test_the_terminal_shows_verdicts_in_its_width(cifar, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_tables(against(cifar(VALUES), "published"), console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert any("70.50 ± 1.24" in x and "reproduced" in x for x in lines)


def test_every_row_fills_every_column(cifar):
    for table in build(against(cifar(VALUES), "published")).parts[0].tables:
        assert {len(row.cells) for row in table.rows} == {len(table.columns)}


# --- the command ---------------------------------------------------------------------


def test_the_command_compares(cifar, tmp_path):
    for record in cifar(VALUES).records:
        write_record(tmp_path / "in", record)
    to = tmp_path / "out"
    arguments = ["report", str(tmp_path / "in"), "--to", str(to), "-f", "markdown"]
    done = CliRunner().invoke(app, [*arguments, "--against", "published"])
    assert done.exit_code == 0, done.output
    assert "Of 21 published numbers: 2 reproduced" in done.output
    assert "Against published numbers" in (to / "report.md").read_text()


def test_an_unknown_reference_names_what_there_is(make, tmp_path):
    for record in make.standard().records:
        write_record(tmp_path / "in", record)
    arguments = ["report", str(tmp_path / "in"), "--against", "nonsense"]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UserError)
    assert "unknown reference 'nonsense' in --against; known: published" in str(
        done.exception
    )
    assert not (tmp_path / "in" / "report").exists()


def test_nothing_to_compare_says_what_has_numbers(make):
    text = build(against(make.standard(), "published")).comparison
    assert text.startswith("No pair here has published numbers. These have: cifar10:")
    assert "wrn_40_2-wrn_16_2" in text
