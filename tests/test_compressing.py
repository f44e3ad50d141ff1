"""Compression as a stage after any strategy: the grid, the runs, and what fails."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

from kdbench.api import UserError
from kdbench.config import FineTuning, changed, read_suite
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.recording import costs_of_both, weights_path
from kdbench.records import Recipe
from kdbench.selections import parse_selection
from kdbench.session import Session
from kdbench.stopping import Stopping

pytestmark = pytest.mark.slow

PLUGIN = """
import copy, dataclasses, torch
from kdbench import Compression, UserError, hookimpl
from kdbench_compression import pruned

def coarse(base):
    def deploy(module):
        module = copy.deepcopy(module)
        with torch.no_grad():
            for p in module.parameters():
                p.copy_((p * 8).round() / 8)
        return base.deploy(module) if base.deploy else module
    return dataclasses.replace(
        base, name=f"coarse_{base.name}", deploy=deploy,
        from_teacher=lambda student, *size: copy.deepcopy(student))

def broken(base):
    def refuse(student, *size):
        raise RuntimeError("no such student")
    return dataclasses.replace(base, name=f"broken_{base.name}", from_teacher=refuse)

def picky(base):
    raise UserError(f"{base.name} is not to its taste")

@hookimpl
def kdbench_compressions():
    return [
        Compression(name="coarse", summary="to eighths", model=coarse),
        Compression(name="half", summary="half as wide", tunes=True,
                    model=lambda base: pruned(base, 0.5)),
        Compression(name="broken", summary="raises", model=broken),
        Compression(name="picky", summary="refuses", model=picky),
        Compression(name="absent", summary="lacks a package", model=coarse,
                    missing=lambda: "absent needs the package nothing"),
    ]
"""


@pytest.fixture(scope="module")
def compressing(tmp_path_factory) -> Host:
    path = tmp_path_factory.mktemp("plugins") / "compressing.py"
    path.write_text(PLUGIN)
    return Host(files=[path])


def small(**changes):
    return {"pairs": ["digits-conv"], "strategies": ["kd"], "epochs": 3, **changes}


@pytest.fixture(scope="module")
def finished(compressing, run_digits, tmp_path_factory):
    """kd, and what each compression makes of it: folder and records by cell."""
    out = tmp_path_factory.mktemp("compressed")
    asked = ["kd", "kd/coarse", "kd/half/coarse", "simkd/coarse"]
    failed, cells = run_digits(out, compressing, **small(strategies=asked))
    assert failed == 0
    return out / "digits", {label.split(" ")[-1]: r for label, r in cells.items()}


def record_of(finished, label):
    [found] = [r for r in finished[1].values() if r.run.label == label]
    return found


@pytest.mark.parametrize(
    ("text", "name", "after"),
    [
        ("kd/coarse", "kd", ("coarse",)),
        ("kd[temperature=2]/half/coarse", "kd", ("half", "coarse")),
        ("kd+fitnet[hint_weight=1] / coarse", "kd+fitnet", ("coarse",)),
        ("dkd@authors/half", "dkd", ("half",)),
    ],
)
def test_a_selection_names_its_compressions(text, name, after):
    [found] = parse_selection(text)
    assert (found.name, found.compressions) == (name, after)


@pytest.mark.parametrize("text", ["kd/", "/coarse", "kd/a b", "kd/x[1]", "kd//y"])
def test_a_selection_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="is not understood"):
        parse_selection(text)


def test_what_is_compressed_stands_beside_what_it_was_made_of(finished):
    labels = {record.run.label for record in finished[1].values()}
    wanted = {"scratch", "kd", "kd/coarse", "kd/half", "kd/half/coarse"}
    assert labels == wanted | {"teacher", "simkd", "simkd/coarse"}
    settings = {r.run.setting for r in finished[1].values() if not r.run.is_teacher}
    assert len(settings) == 1


def test_a_measured_only_student_is_the_finished_one_compressed(finished):
    folder, _ = finished
    before, after = record_of(finished, "kd"), record_of(finished, "kd/coarse")
    ours = load_file(weights_path(folder, after.id))
    for name, value in load_file(weights_path(folder, before.id)).items():
        trained = "running" not in name and "num_batches" not in name
        expected = (value * 8).round() / 8 if trained else value
        assert torch.equal(ours[name], expected)
    assert after.run.source == before.id
    assert after.cost == before.cost
    assert after.curves == {}


def test_a_tuned_student_learns_on_by_its_strategy(finished):
    before, after = record_of(finished, "kd"), record_of(finished, "kd/half")
    assert after.run.recipe.epochs == 1
    assert after.run.recipe.lr == pytest.approx(before.run.recipe.lr / 10)
    assert after.run.beside == before.run.recipe
    assert len(after.curves["loss/kd"]) == 1
    assert after.measures["parameters"] < before.measures["parameters"] / 2
    for name in ("train_s", "student_epochs", "teacher_forwards"):
        assert after.cost[name] > before.cost[name]
    assert after.cost["student_epochs"] == 4


def test_compressions_follow_one_another(finished):
    first, last = record_of(finished, "kd/half"), record_of(finished, "kd/half/coarse")
    assert last.run.source == first.id
    assert last.run.compression == "half/coarse"
    assert last.measures["parameters"] == first.measures["parameters"]


def test_a_network_that_a_strategy_deploys_is_compressed_too(finished):
    before, after = record_of(finished, "simkd"), record_of(finished, "simkd/coarse")
    assert after.measures["parameters"] == before.measures["parameters"] > 5000


def test_compressing_changes_no_bit_of_what_is_not_compressed(
    finished, compressing, run_digits, helpers, tmp_path
):
    _, cells = run_digits(tmp_path, compressing, **small())
    for record in cells.values():
        same = record_of(finished, record.run.label)
        assert helpers["bits"](record) == helpers["bits"](same)


def test_a_tuned_student_that_was_stopped_gets_the_same_bits(
    finished, compressing, helpers, tmp_path
):
    """Stopped every 25 steps, in the fine-tuning too."""
    suite = helpers["suite"](compressing, **small(strategies=["kd/half/coarse"]))
    stops = 0
    while stops < 50:
        session = Session(compressing, suite, helpers["options"](tmp_path), Soon())
        try:
            session.train()
            break
        except KeyboardInterrupt:
            stops += 1
    assert 3 < stops < 50
    for record in helpers["by_cell"](tmp_path / "digits").values():
        same = record_of(finished, record.run.label)
        assert helpers["bits"](record) == helpers["bits"](same)


class Soon(Stopping):
    """Stops when it was asked 25 times."""

    left = 25

    def __call__(self):
        self.left -= 1
        return self.left < 0


def plan_of(host, helpers, **changes):
    return make_plan(helpers["suite"](host, **small(**changes)), host, {})


def test_the_suite_key_is_for_every_strategy(compressing, helpers):
    plan = plan_of(compressing, helpers, compress=["coarse"], strategies=["kd", "at"])
    labels = {run.label for group in plan.todo for run in group.runs}
    wanted = {
        f"{name}{end}" for name in ("scratch", "kd", "at") for end in ("", "/coarse")
    }
    assert labels == wanted | {"teacher"}


def test_a_chain_for_every_strategy_brings_its_steps(compressing, helpers):
    plan = plan_of(compressing, helpers, compress=["half/coarse"])
    labels = {run.label for group in plan.todo for run in group.runs}
    wanted = {f"kd{end}" for end in ("", "/half", "/half/coarse")}
    assert wanted <= labels


def test_a_sum_is_tuned(compressing, helpers):
    plan = plan_of(compressing, helpers, strategies=["kd+fitnet/half"])
    assert "kd+fitnet/half" in {r.label for g in plan.todo for r in g.runs}
    assert "kd+fitnet/half" not in {run.label for run, _ in plan.skipped}


def test_another_fine_tuning_is_another_row(compressing, helpers):
    """So that no mean is over students that were tuned differently."""
    tuning = {"epochs": 2, "lr": 0.25}
    plan = plan_of(
        compressing, helpers, strategies=["kd/half/coarse"], fine_tuning=tuning
    )
    runs = {run.label: run for group in plan.todo for run in group.runs}
    tuned = runs["kd/half[epochs=2,lr=0.25]"]
    assert (tuned.recipe.epochs, tuned.recipe.lr) == (2, 0.25)
    assert "kd/half[epochs=2,lr=0.25]/coarse" in runs


def test_milestones_follow_the_epochs_of_the_fine_tuning():
    recipe = Recipe(epochs=240, milestones=(150, 180, 210), lr=0.5)
    assert recipe.fine_tuning().milestones == (50, 60, 70)
    tuned = FineTuning(epochs=24).of(recipe)
    assert (tuned.epochs, tuned.milestones, tuned.lr) == (24, (15, 18, 21), 0.05)
    assert tuned.lr_at(20) == pytest.approx(0.05 / 100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('compress = "coarse"', "write a list"),
        ("[fine_tuning]\nepoch = 3", "did you mean 'epochs'"),
        ("[fine_tuning]\nepochs = 0", "fine_tuning.epochs = 0"),
        ("[recipe]\nvalidation = 1.0", "recipe.validation = 1.0"),
    ],
)
def test_a_mistake_in_a_suite_is_explained(tmp_path, text, says):
    path = tmp_path / "mine.toml"
    grid = 'datasets = ["digits"]\npairs = ["digits-mlp"]\nstrategies = ["kd"]\n'
    path.write_text(grid + text)
    with pytest.raises(UserError, match=re.escape(says)):
        read_suite(path)


def test_fine_tuning_is_extended_key_by_key(tmp_path):
    grid = 'datasets = ["digits"]\npairs = ["digits-mlp"]\nstrategies = ["kd"]\n'
    (tmp_path / "base.toml").write_text(f"{grid}[fine_tuning]\nlr = 0.5\n")
    child = tmp_path / "child.toml"
    child.write_text('extends = "base.toml"\n[fine_tuning]\nepochs = 1\n')
    assert read_suite(child).fine_tuning.given == {"epochs": 1, "lr": 0.5}


def test_measures_are_asked_for_in_suites_of_several_systems(tmp_path):
    path = tmp_path / "several.toml"
    path.write_text(
        'pairs = ["digits-mlp"]\nstrategies = ["kd"]\ndatasets = ["digits"]\n'
        '[[systems]]\ntitle = "one"\n[[systems]]\ntitle = "two"\nseeds = 1\n'
    )
    suite = changed(read_suite(path), {"measures": ["cka"], "compress": ["coarse"]})
    assert suite.measures == ("cka",)
    assert [part.compress for part in suite.parts] == [("coarse",)] * 2


def test_what_was_not_taken_of_one_training_is_not_known_of_both():
    first, then = {"own_s": 1.0}, {"own_s": 2.0, "energy_j": 5.0, "graph_s": 1.0}
    both = costs_of_both(first, then)
    assert both == {"own_s": 3.0, "energy_j": None, "graph_s": 1.0}


def test_jobs_wait_for_the_students_they_start_from(compressing, helpers, tmp_path):
    from kdbench.execute import make_jobs

    plan = plan_of(compressing, helpers, strategies=["kd/half/coarse"])
    jobs = make_jobs(plan, compressing, {"digits": 100}, tmp_path, None, "cpu", 60.0)
    done: set[str] = set()
    for job in jobs:
        assert job.needs <= done
        done |= {run.id for run in job.group.runs}
    by_label = {run.label: job for job in jobs for run in job.group.runs}
    kd = next(r.id for g in plan.todo for r in g.runs if r.label == "kd")
    assert kd in by_label["kd/half"].needs


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("kd/picky", "picky: convnet_6 is not to its taste"),
        ("kd/absent", "absent needs the package nothing"),
        ("kd/coarse/half", "half trains its student further, and must stand before"),
        ("dml/half", "it trains several networks"),
        ("meta_pseudo_labels/half", "it drives a training loop of its own"),
        ("simkd/half", "it deploys another network than its student"),
    ],
)
def test_what_cannot_be_compressed_is_skipped_with_a_reason(
    compressing, helpers, label, reason
):
    plan = plan_of(compressing, helpers, strategies=[label])
    skipped = {run.label: why for run, why in plan.skipped}
    assert reason in skipped[label]


def test_a_strategy_that_is_skipped_is_named_once(compressing, helpers):
    plan = plan_of(compressing, helpers, strategies=["fsp"], compress=["coarse"])
    assert [run.label for run, _ in plan.skipped] == ["fsp"]


def test_an_unknown_compression_has_near_matches(compressing, helpers):
    with pytest.raises(UserError, match="did you mean 'coarse'"):
        plan_of(compressing, helpers, strategies=["kd/coars"])


def test_a_compression_that_raises_fails_alone(compressing, run_digits, tmp_path):
    asked = small(strategies=["kd/broken", "kd/coarse"])
    failed, cells = run_digits(tmp_path, compressing, **asked)
    by_label = {record.run.label: record for record in cells.values()}
    assert failed == 1
    assert "no such student" in by_label["kd/broken"].reason
    assert by_label["kd/coarse"].status == by_label["kd"].status == "finished"


def test_a_source_whose_weights_are_gone_is_named(compressing, run_digits, tmp_path):
    _, cells = run_digits(tmp_path, compressing, **small())
    [kd] = [r for r in cells.values() if r.run.label == "kd"]
    weights_path(tmp_path / "digits", kd.id).unlink()
    failed, cells = run_digits(tmp_path, compressing, **small(strategies=["kd/coarse"]))
    [made] = [r for r in cells.values() if r.run.label == "kd/coarse"]
    assert failed == 1
    assert "the weights of kd are not at" in made.reason


def test_weights_that_were_changed_are_not_compressed(
    compressing, run_digits, tmp_path
):
    _, cells = run_digits(tmp_path, compressing, **small())
    [kd] = [r for r in cells.values() if r.run.label == "kd"]
    path = weights_path(tmp_path / "digits", kd.id)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    failed, cells = run_digits(tmp_path, compressing, **small(strategies=["kd/coarse"]))
    [made] = [r for r in cells.values() if r.run.label == "kd/coarse"]
    assert failed == 1
    assert "has other weights than the record" in made.reason


def test_runs_without_compression_keep_their_ids(finished):
    """What came with compression is not in the identity of what has none."""
    run = record_of(finished, "kd").run
    plain = run.model_dump(mode="json")
    assert not {"compression", "source", "beside"} & {k for k, v in plain.items() if v}
    moved = run.model_copy(update={"source": "somewhere"})
    assert moved.id != run.id


def test_an_optional_measure_is_taken_of_finished_runs_without_training(
    compressing, run_digits, helpers, tmp_path
):
    _, before = run_digits(tmp_path, compressing, **small())
    _, after = run_digits(tmp_path, compressing, **small(measures=["cka"]))
    for cell, record in after.items():
        old = before[cell]
        assert "cka" not in old.measures
        assert "cka" in record.measures
        assert record.cost == old.cost
        assert record.finished_at == old.finished_at
        assert record.measures.items() >= old.measures.items()
    [kd] = [r for r in after.values() if r.run.label == "kd"]
    assert 0 < kd.measures["cka"] <= 1


def test_a_table_of_before_and_after(finished, helpers):
    from kdbench.report.compression import compression_table
    from kdbench.report.sections import sections
    from kdbench.store import load

    [section] = sections(load([finished[0]]))
    table = compression_table(section)
    keys = [column.key for column in table.columns]
    rows = {
        row.cells[0].value: dict(zip(keys, row.cells, strict=True))
        for row in table.rows
    }
    half, kd = record_of(finished, "kd/half"), record_of(finished, "kd")
    assert rows.keys() == {"kd/coarse", "kd/half", "kd/half/coarse", "simkd/coarse"}
    row = rows["kd/half"]
    assert row["before"].value == kd.measures["top1"]
    assert row["after"].value == half.measures["top1"]
    assert row["change"].value == pytest.approx(
        half.measures["top1"] - kd.measures["top1"]
    )
    ratio = kd.measures["size_bytes"] / half.measures["size_bytes"]
    assert row["smaller"].value == pytest.approx(ratio)


def test_curves_are_of_students_that_are_not_compressed(finished):
    from kdbench.report.analysis import standings
    from kdbench.report.plots import section_plots
    from kdbench.report.plots.curves import named_strategies
    from kdbench.report.sections import sections
    from kdbench.store import load

    [section] = sections(load([finished[0]]))
    assert named_strategies(section, standings(section)) == ["scratch", "kd", "simkd"]
    [curves] = [p for p in section_plots(section) if p.stem.endswith("curves")]
    assert {s.label for s in curves.draw.args[1]} == {"scratch", "kd", "simkd"}
