"""Strategies as they are asked for: presets by the pair, sums, assistants."""

from __future__ import annotations

import pytest

from kdbench.api import UserError
from kdbench.choices import choose, configure
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.selections import parse_selection

PLUGIN = """
from dataclasses import dataclass
from kdbench import Pair, Phase, Strategy, hookimpl, label_loss

@dataclass(frozen=True, kw_only=True)
class Tuned(Strategy):
    '''Cross-entropy, weighed.'''
    name = "tuned"
    paper = "a test"
    presets = {
        "authors": {"digits-mlp": {"ce_weight": 2.0, "sharp_temperature": 3.0}},
        "ours": {"digits-mlp": {}, "digits-conv": {"ce_weight": 7.0}},
    }
    ce_weight: float = 1.0  # >= 0
    sharp_temperature: float = 1.0  # > 0

    def loss(self, batch):
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce}

@dataclass(frozen=True, kw_only=True)
class Stepping(Tuned):
    '''Trains an assistant first.'''
    name = "stepping"
    presets = {}
    assistants = 1

    def phases(self):
        return (Phase(name="assistant", students=(1,)),
                Phase(students=(0,), teachers=(), peers=(1,)))

@hookimpl
def kdbench_strategies():
    return [Tuned, Stepping]
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "tuned.py"
    file.write_text(PLUGIN)
    return Host(files=[file])


@pytest.fixture
def plan_of(tuned, helpers):
    return lambda **changes: make_plan(helpers["suite"](tuned, **changes), tuned, {})


def cells(plan):
    runs = [run for group in plan.todo for run in group.runs]
    return {(r.label, r.pair): r.params for r in runs if not r.is_teacher}


def test_a_preset_has_its_own_values_on_each_pair(plan_of):
    found = cells(plan_of(strategies=["tuned@ours", "tuned"]))
    assert found["tuned@ours", "digits-conv"]["ce_weight"] == 7
    assert found["tuned", "digits-conv"]["ce_weight"] == 1


def test_a_pair_without_settings_is_skipped_with_the_reason(plan_of):
    plan = plan_of(strategies=["tuned@authors"])
    found = cells(plan)
    assert found["tuned@authors", "digits-mlp"] == {
        "ce_weight": 2.0,
        "sharp_temperature": 3.0,
    }
    [(run, reason)] = plan.skipped
    assert (run.pair, run.label) == ("digits-conv", "tuned@authors")
    assert reason == "tuned@authors has no settings for it"


def test_explicit_values_win_over_a_presets(plan_of):
    texts = ["tuned@authors[ce_weight=5]"]
    found = cells(plan_of(strategies=texts, pairs=["digits-mlp"]))
    assert found["tuned@authors[ce_weight=5]", "digits-mlp"] == {
        "ce_weight": 5.0,
        "sharp_temperature": 3.0,
    }


def test_a_part_of_a_sum_has_its_preset(plan_of):
    texts = ["kd+tuned@authors[sharp_temperature=9,weight=0.5]"]
    found = cells(plan_of(strategies=texts, pairs=["digits-mlp"]))
    params = found[texts[0], "digits-mlp"]
    assert params["tuned.ce_weight"] == 2
    assert (params["tuned.weight"], params["tuned.sharp_temperature"]) == (0.5, 9)
    assert (params["kd.weight"], params["kd.temperature"]) == (1, 4)


def test_dkd_has_its_authors_settings(host):
    [choice] = choose(["dkd@authors"], host, "")
    assert choice.label == "dkd@authors"
    pair = host.get("pairs", "resnet56-resnet20").thing
    strategy, missing = choice.on(pair)
    assert (strategy.non_target_weight, missing) == (2, None)
    assert choice.strategy.non_target_weight == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tuned@author", "unknown preset 'author' in strategy 'tuned'; did you mean"),
        ("kd+tuned@author", "did you mean 'authors'"),
        ("kd@authors", "unknown preset 'authors' in strategy 'kd'; known: none"),
        ("tunde@authors", "did you mean 'tuned'"),
        ("kd+tunde", "unknown strategy 'tunde' in suite 'x'; did you mean 'tuned'"),
        ("kd+tuned[ce_wight=2]", "did you mean 'tuned.ce_weight'"),
        ("kd+scratch+kd", "name each strategy once"),
        ("kd+split_transfer", "split_transfer drives its own loop"),
    ],
)
def test_names_that_are_not_there_are_refused(tuned, text, says):
    [selection] = parse_selection(text)
    with pytest.raises(UserError) as caught:
        configure(selection, tuned, "suite 'x'")
    assert says in str(caught.value)


def test_a_skipped_preset_does_not_take_a_finished_runs_place(
    tuned, run_digits, tmp_path
):
    """dkd's own run on a pair is not what dkd@authors has no settings for."""
    changes = {"pairs": ["digits-conv"], "epochs": 1}
    run_digits(tmp_path, tuned, strategies=["tuned"], **changes)
    _, records = run_digits(tmp_path, tuned, strategies=["tuned@authors"], **changes)
    assert records["digits-conv/tuned/0"].status == "finished"
    assert records["digits-conv/tuned@authors/0"].status == "skipped"


def test_a_preset_that_equals_the_defaults_is_a_cell_of_its_own(plan_of):
    found = cells(plan_of(strategies=["tuned", "tuned@ours"], pairs=["digits-mlp"]))
    assert {label for label, _ in found} >= {"tuned", "tuned@ours"}


def test_a_pair_without_an_assistant_is_skipped_with_the_reason(plan_of):
    sides = {"teacher": "convnet_32", "student": "convnet_6"}
    pairs = {"bare": sides, "full": {**sides, "assistant": "convnet_14"}}
    plan = plan_of(strategies=["stepping"], pairs=[*pairs], define_pairs=pairs)
    [(run, reason)] = plan.skipped
    assert (run.pair, run.students) == ("bare", ("convnet_6",))
    assert "the pair bare has no assistant" in reason
    [stepping] = [r for g in plan.todo for r in g.runs if r.label == "stepping"]
    assert (stepping.pair, stepping.students) == ("full", ("convnet_6", "convnet_14"))
    assert {"model convnet_6", "model convnet_14"} <= set(stepping.code)


def test_an_assistant_is_trained_first_and_never_deployed(tuned, run_digits, tmp_path):
    _, records = run_digits(
        tmp_path, tuned, pairs=["digits-conv"], strategies=["stepping"]
    )
    record = records["digits-conv/stepping/0"]
    assert record.status == "finished"
    assert record.weights_sha256 == records["digits-conv/scratch/0"].weights_sha256
    assert record.cost["student_epochs"] == 4
    assert len(record.curves["before/assistant/ce"]) == 2
