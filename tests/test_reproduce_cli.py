"""`kdbench reproduce` as a user meets it: a tiny published folder, trained again."""

from __future__ import annotations

import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from kdbench import reproduce_cli
from kdbench.api import UserError
from kdbench.plugins import Host
from kdbench.plugins_cli import loads_plugins
from kdbench.records import Record
from kdbench.store import load, write_record

pytestmark = pytest.mark.slow

app = typer.Typer()
loads_plugins(app)(reproduce_cli.reproduce)

PLUGIN = """
import copy, dataclasses, torch
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Compression, Strategy, hookimpl
from kdbench_compression import pruned

@dataclass(frozen=True, kw_only=True)
class Fragile(Strategy):
    '''Raises once it is told to.'''
    name = "fragile"
    broken = False

    def loss(self, batch):
        if type(self).broken:
            raise RuntimeError("it broke")
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Fragile]

@hookimpl
def kdbench_compressions():
    return [Compression(name="half", summary="half as wide", tunes=True,
                        model=lambda base: pruned(base, 0.5))]
"""


@pytest.fixture(scope="module")
def plugged(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins") / "fragile.py"
    path.write_text(PLUGIN)
    return Host(files=[path])


@pytest.fixture(scope="module")
def trained(plugged, run_digits, tmp_path_factory):
    """Really trained, one epoch; never to be changed."""
    out = tmp_path_factory.mktemp("published")
    chosen = {"pairs": ["digits-mlp"], "seeds": 3, "epochs": 1}
    chosen["strategies"] = ["scratch", "kd", "kd/int8_weights", "fragile"]
    failed, _ = run_digits(out, plugged, **chosen)
    assert failed == 0
    return out / "digits"


@pytest.fixture
def published(trained, tmp_path):
    """The records alone, as they are published, to be changed by a test."""
    folder = tmp_path / "reference" / "cpu" / "digits"
    folder.mkdir(parents=True)
    for path in trained.glob("*.json"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(autouse=True)
def _at_hand(plugged, monkeypatch):
    """The plugins are loaded once, and there is no terminal."""
    monkeypatch.setattr(reproduce_cli, "host_of_command", lambda: plugged)
    monkeypatch.delenv("KDBENCH_DATA", raising=False)


def run(*arguments):
    given = [*map(str, arguments), "--executor", "here"]
    return CliRunner().invoke(app, given)


def in_json(*arguments):
    result = run(*arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def refused(*arguments):
    error = run(*arguments).exception
    assert isinstance(error, UserError), error
    return str(error)


def edit(folder, change, **which):
    """Change records consistently, as one who knows the tool can."""
    found = [
        record
        for record in load([folder]).records
        if all(getattr(record.run, key) == value for key, value in which.items())
    ]
    assert found
    for record in found:
        (folder / f"{record.id}.json").unlink()
        new = record.model_copy(update=change(record))
        write_record(folder, new.model_copy(update={"id": new.run.id}))


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_published_is_trained_again_bit_for_bit(published):
    before = snapshot(published)
    result = run(published.parents[1], "--cells", 4, "--draw", 7)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "4 of 4 cells hold: 4 bit for bit" in text
    assert "draw 7: 4 of 12 cells in 1 folder, about 0:0" in text
    assert text.count("identical") == 4
    assert text.count("digits teacher mlp_bn_256_128 #0") == 1  # trained once
    assert "Interval: " not in text  # nothing was judged by it
    assert snapshot(published) == before


def test_a_compressed_student_is_made_of_a_new_one(published):
    code, whole = in_json(published, "-s", "kd/int8_weights", "--cells", 1)
    assert code == 0
    [cell] = whole["cells"]
    assert cell["verdict"] == "identical"
    assert cell["new_id"] == cell["id"]
    assert "/kd/int8_weights#" in cell["cell"]


def test_so_is_one_that_was_trained_further(plugged, run_digits, tmp_path):
    chosen = {"pairs": ["digits-conv"], "strategies": ["kd/half/int8_weights"]}
    run_digits(tmp_path, plugged, **chosen)
    code, whole = in_json(tmp_path, "-s", "kd/half/int8_weights,kd/half")
    assert code == 0
    assert [cell["verdict"] for cell in whole["cells"]] == ["identical"] * 2


def test_the_teacher_is_trained_anew_and_compared(published, monkeypatch):
    """It is on record with other weights; the cache would have had it."""
    edit(published, lambda one: {"weights_sha256": "ab" * 32}, strategy="teacher")
    code, whole = in_json(published, "-s", "scratch", "--cells", 1)
    assert code == 1
    [cell] = whole["cells"]
    assert cell["verdict"] == "differs"
    assert cell["difference"].startswith("teacher mlp_bn_256_128 #0: weights_sha256 is")


def test_the_cache_of_teachers_is_neither_read_nor_written(
    published, monkeypatch, tmp_path
):
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    teachers = tmp_path / "cache" / "teachers"
    teachers.mkdir(parents=True)
    [teacher] = [r for r in load([published]).records if r.run.is_teacher]
    (teachers / f"{teacher.id}.safetensors").write_bytes(b"not a teacher")
    before = snapshot(teachers)
    result = run(published, "-s", "kd", "--cells", 1)
    assert result.exit_code == 0, result.output
    assert snapshot(teachers) == before


def test_a_number_changed_by_one_who_knows_how_is_found(published):
    def better(record: Record):
        return {"measures": record.measures | {"nll": record.measures["nll"] + 1e-12}}

    edit(published, better, label="kd", seed=1)
    result = run(published, "-s", "kd", "--cells", 3)
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "digits/digits-mlp/kd#1: nll is " in text
    assert "2 of 3 cells hold: 2 bit for bit, 1 not the same" in text


def elsewhere(**values):
    """As if made on another machine, with another last bit there."""

    def change(record: Record):
        curves = {k: [x + 1e-9 for x in c] for k, c in record.curves.items()}
        return {"environment": record.environment | values, "curves": curves}

    return change


def test_elsewhere_the_interval_judges(published):
    edit(published, elsewhere(torch="1.0"), label="kd")
    result = run(published, "-s", "kd", "--cells", 1)
    text = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    assert "1 of 1 cell holds: 1 not contradicted (within the interval)" in text
    assert "other machine: torch 1.0, here" in text
    assert "at 99%" in text

    def worse(record: Record):  # seeds far above what trains here
        own = record.measures | {"top1": 99.0 + record.run.seed / 1000}
        return {"correct": None, "measures": own}

    edit(published, worse, label="kd")
    code, whole = in_json(published, "-s", "kd", "--cells", 1)
    assert (code, whole["reproduced"]) == (1, False)
    assert whole["cells"][0]["verdict"] == "outside"


def test_as_many_threads_as_on_record_are_used(published):
    """Trained on one, said to be two: what is new is on two, and compared as such."""
    edit(published, lambda one: {"environment": one.environment | {"threads": 2}})
    code, whole = in_json(published, "-s", "scratch", "--cells", 1)
    [cell] = whole["cells"]
    assert cell["elsewhere"] == []
    assert cell["verdict"] in ("identical", "differs")  # not judged by an interval
    assert code == (cell["verdict"] == "differs")


def test_other_code_is_said(published):
    def older(record: Record):
        code = record.run.code | {"strategy": "0" * 12}
        changed = elsewhere()(record)
        return changed | {"run": record.run.model_copy(update={"code": code})}

    edit(published, older, label="kd")
    text = " ".join(run(published, "-s", "kd", "--cells", 1).output.split())
    assert "changed since: code of kd" in text
    assert "1 of 1 cell holds: 1 not contradicted (within the interval)" in text


def test_with_few_seeds_there_is_no_interval_to_judge_by(published):
    for record in load([published]).records:
        if record.run.seed:
            (published / f"{record.id}.json").unlink()
    edit(published, elsewhere(torch="1.0"), label="kd")
    result = run(published, "-s", "kd")
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "no interval: 1 committed seeds, and it takes 3" in text
    assert "0 of 1 cell holds: 1 without an interval to judge it by" in text


def test_a_cell_that_fails_says_why(published, plugged, monkeypatch):
    monkeypatch.setattr(plugged.strategy("fragile"), "broken", True)
    result = run(published, "-s", "fragile", "--cells", 1)
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "it broke" in text
    assert "0 of 1 cell holds: 1 failed" in text


def test_a_damaged_record_is_named_and_fails_the_check(published):
    path = next(p for p in published.glob("*.json") if '"fragile"' in p.read_text())
    path.write_text(path.read_text().replace('"epochs": 1', '"epochs": 3'))
    result = run(published, "-s", "scratch", "--cells", 1)
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    assert f"not whole: {path}" in "".join(result.output.split("\n")) or (
        path.name in text
    )
    assert "1 of 1 cell holds: 1 bit for bit; 1 record not whole" in text


def test_what_data_are_missing_for_is_left_out_and_said(published, tmp_path):
    def moved(record: Record):
        run = record.run.model_copy(update={"dataset": "mnist"})
        return {"run": run}

    edit(published, moved, label="scratch")
    code, whole = in_json(published, "-s", "scratch,kd", "--cells", 1)
    assert code == 0
    assert "3 cells: dataset 'mnist' needs files" in whole["left_out"][0]
    assert whole["cells"][0]["cell"].startswith("digits/")
    assert "dataset 'mnist' needs files" in refused(published, "-s", "scratch")


def test_draws_are_repeatable_and_within_the_budget(published, monkeypatch):
    drawn = []

    def only_plan(cells, *_):
        drawn.append([cell.title for cell in cells])
        raise UserError("planned only")

    monkeypatch.setattr("kdbench.reproducing.reproduce", only_plan)
    for number in (3, 3, 4):
        assert refused(published, "--draw", number) == "planned only"
    assert drawn[0] == drawn[1] != drawn[2]
    text = run(published, "--budget", "60").output
    assert "with its teachers 0:0" in text
    numbers = {run(published).output.partition(":")[0] for _ in range(3)}
    assert len(numbers) == 3  # a draw of its own each time
    assert "longer than --budget 0 minutes" in refused(published, "--budget", 0)


def test_a_users_mistakes_start_nothing(published, tmp_path):
    assert "did you mean" in refused(published.parent / "digts")
    assert "did you mean 'kd'" in refused(published, "-s", "kdd")
    assert "unknown pair 'x'" in refused(published, "-p", "x")
    assert (
        "unknown executor"
        in CliRunner()
        .invoke(app, [str(published), "--executor", "nowhere"])
        .exception.args[0]
    )
    (tmp_path / "empty").mkdir()
    assert "no record in" in refused(tmp_path / "empty")
    result = run(published, "--data-dir", tmp_path / "nowhere")
    assert result.exit_code == 2


def test_interrupted_it_tells_what_is_done(published, monkeypatch):
    from kdbench import execute

    perform = execute.perform
    done = []

    def until_the_third(job, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        perform(job, *rest)

    monkeypatch.setattr(execute, "perform", until_the_third)
    result = run(published, "-s", "scratch,kd", "--cells", 4)
    text = " ".join(result.output.split())
    assert result.exit_code == 130
    assert "1 of 1 cell holds" in text
    assert "interrupted: 3 of 4 not done" in text


def test_in_worker_processes_the_bits_are_the_same(trained, plugged):
    result = CliRunner().invoke(app, [str(trained), "-s", "scratch,kd/int8_weights"])
    assert result.exit_code == 0, result.output
    assert "5 of 5 cells hold: 5 bit for bit" in result.output
