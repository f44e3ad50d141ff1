"""The command: which run a name means, in which folder, and what is printed."""

from __future__ import annotations

import shutil

import pytest
import typer
from exports import KD
from typer.testing import CliRunner

from kdbench import export_cli
from kdbench.api import UserError
from kdbench.exporting.runs import find, only_folder
from kdbench.plugins_cli import loads_plugins
from kdbench.store import load, write_record


def test_runs_are_found_by_any_of_their_names(digits):
    record = find(digits, KD)
    for name in (record.id, record.id[:6], f"digits/{KD}", f"digits/{KD}#0"):
        assert find(digits, name) == record
    teacher = find(digits, "mlp_bn_256_128")
    assert teacher.run.is_teacher
    assert find(digits, "digits/mlp_bn_256_128#0") == teacher


def test_an_older_run_of_the_same_cell_is_found_by_its_id(copied):
    record = find(copied, KD)
    run = record.run.model_copy(update={"code": {"strategy": "another"}})
    older = record.model_copy(
        update={"id": run.id, "run": run, "finished_at": "2000-01-01T00:00:00+00:00"}
    )
    write_record(copied, older)
    assert find(copied, KD) == record
    assert find(copied, run.id[:8]) == older


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kdd", "unknown run 'kdd'.*did you mean 'kd'"),
        ("digits-mpl/kd", "did you mean 'digits-mlp/kd'"),
        ("kd", r"'kd' names 2 runs.*digits/digits-mlp/kd#0\).*whole name"),
    ],
)
def test_a_name_of_no_run_or_of_several(copied, name, words):
    record = find(copied, KD)
    run = record.run.model_copy(update={"seed": 1})
    write_record(copied, record.model_copy(update={"id": run.id, "run": run}))
    with pytest.raises(UserError, match=words):
        find(copied, name)
    assert find(copied, "kd#1").run == run


def test_the_only_folder_is_taken(digits, tmp_path):
    with pytest.raises(UserError, match="no folder of results"):
        only_folder(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.json").write_text("{}")
    assert only_folder(tmp_path) == tmp_path / "one"
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"give --from: .*one, .*two"):
        only_folder(tmp_path)


def test_the_command_writes_beside_the_results_and_says_its_proof(
    copied, tmp_path, monkeypatch
):
    (tmp_path / "results").mkdir()
    shutil.move(copied, tmp_path / "results" / "digits")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    loads_plugins(app)(export_cli.export)
    done = CliRunner().invoke(app, ["mlp_bn_256_128", "-f", "safetensors"])
    assert done.exit_code == 0, done.output
    [record] = [
        r
        for r in load([tmp_path / "results" / "digits"]).records
        if r.run.students == ("mlp_bn_256_128",)
    ]
    place = tmp_path / "results" / "digits" / "export" / f"{record.id}-safetensors"
    assert (place / "student.safetensors").is_file()
    top1 = f"Top-1 {record.measures['top1']:.2f}%, as recorded"
    assert "gives the student's answers to all 450 test items of digits" in done.output
    assert top1 in done.output
    assert "a teacher trained on digits" in (place / "README.md").read_text()
