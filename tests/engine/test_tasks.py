"""Other tasks and students: numbers, several heads, no gradients, no fresh start."""

from __future__ import annotations

import json

import pytest
import torch

from kdbench.config import Suite
from kdbench.data.digits import DIGITS, DIGITS_AND_INK
from kdbench.data.tabular import TABULAR
from kdbench.engine.feed import Feed
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.records import Recipe
from kdbench.session import Session
from kdbench.store import load

pytestmark = pytest.mark.slow

PLUGIN = """
from dataclasses import dataclass
from copy import deepcopy
import torch, torch.nn.functional as F
from torch import nn
from kdbench import *

class Centroids(nn.Module):
    '''Nearest class centre, each item counting by its target's probability.'''
    def __init__(self, shape, outputs):
        super().__init__()
        size = 1
        for n in shape: size *= n
        self.shape = (outputs, size)
        self.centres = torch.zeros(outputs, size)
        self.macs_unknown = "it is no network"
    def fit(self, inputs, targets):
        x = inputs.flatten(1)
        self.centres = targets.T @ x / targets.sum(0)[:, None].clamp(min=1e-9)
    def forward(self, inputs):
        if inputs.is_meta:
            return torch.empty(len(inputs), self.shape[0], device="meta")
        return -torch.cdist(inputs.flatten(1), self.centres)
    def get_extra_state(self):
        return self.centres.contiguous().view(torch.uint8).flatten()
    def set_extra_state(self, state):
        self.centres = state.clone().view(torch.float32).view(self.shape)

class Net(nn.Module):
    def __init__(self, shape, outputs, width=16):
        super().__init__()
        size = 1
        for n in shape: size *= n
        self.stage1 = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU())
        self.head = nn.Linear(width, outputs)
    def forward(self, x):
        return self.head(self.stage1(x))

def halved(net):
    net = deepcopy(net)
    for p in net.parameters(): p.data = p.data.bfloat16().float()
    return net

class Broken(Net):
    def forward(self, x):
        if not x.is_meta: raise RuntimeError("out of order")
        return super().forward(x)

def best():
    net = Net((64,), 10)
    for p in net.parameters(): p.data.fill_(0.5)
    return net.state_dict()

@hookimpl
def kdbench_models():
    taps = {"stage1": "stage1", "pooled": "head:input"}
    common = {"taps": taps, "classifier": "head"}
    bare = {"taps": {}, "classifier": ""}
    return [
        Model(name="centroids", summary="", build=Centroids, learner="fitted", **bare),
        Model(name="margins", summary="", build=Centroids, learner="fitted",
              probabilities=False, **bare),
        Model(name="net", summary="", build=Net, **common),
        Model(name="copy", summary="", build=Net,
              from_teacher=lambda teacher, *_: deepcopy(teacher), **common),
        Model(name="broken", summary="", build=Broken, **common),
        Model(name="bought", summary="", build=Net, weights=best, **common),
        Model(name="rounded", summary="", build=Net, deploy=halved, **common),
    ]

@hookimpl
def kdbench_pairs():
    return [Pair(name=f"{t}-{s}", teachers=(t,), students=(s,))
            for t in ("net", "centroids", "margins", "bought")
            for s in ("net", "centroids", "copy", "rounded")] + [
        Pair(name="mixed", teachers=("net", "margins"), students=("net", "centroids")),
        Pair(name="partly", teachers=("net", "broken"), students=("net",)),
    ]
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "others.py"
    path.write_text(PLUGIN)
    return Host(files=[path])


@pytest.fixture
def run(other, helpers, tmp_path):
    """Records by label (teachers by "teacher") of one pair on one dataset."""

    def run(dataset, pair, *strategies, failures=0, **recipe):
        suite = Suite(
            name="other",
            datasets=(dataset,),
            pairs=(pair,),
            strategies=strategies,
            seeds=1,
            recipe=Recipe(**{"epochs": 2, "lr": 0.02, "schedule": "cosine", **recipe}),
        )
        session = Session(other, suite, helpers["options"](tmp_path))
        session.train()
        assert len(session.failed) == failures, [r.reason for r in session.failed]
        return {r.run.label: r for r in load([tmp_path / "other"]).records}

    return run


REGRESSION = [
    "scratch",
    "kd",
    "logit_mse",
    "hard_pseudo_label",
    "fitnet[hint_stage=1]",
    "dml",
    "ensemble_kd",
    "split_transfer",
    "rkd",
    "pkt",
    "sp",
]


def test_every_strategy_with_a_regression_form_trains_numbers(run):
    records = run("diabetes", "net-net", *REGRESSION, epochs=20, batch_size=32)
    for label in REGRESSION:
        record = records[label]
        assert record.status == "finished"
        assert record.headline.name == "rmse"
        assert record.correct is None
        assert set(record.measures) >= {"rmse", "mae", "r2", "parameters"}
        assert record.measures["rmse"] < 70  # the mean of the targets has 70.4
        assert record.curves["rmse"][-1] == pytest.approx(record.measures["rmse"])


def test_what_has_no_regression_form_is_skipped_with_a_sentence(run):
    records = run("diabetes", "net-net", "dkd", "confident_pseudo_label")
    for label in ("dkd", "confident_pseudo_label"):
        assert records[label].reason == (
            f"{label} is defined for classification, and diabetes is a regression "
            "dataset"
        )


def test_each_head_is_taught_by_its_own_form(run):
    labels = ["scratch", "kd", "dml", "fitnet[hint_stage=1,hint_weight=1]"]
    records = run("digits_and_ink", "net-net", *labels, epochs=8)
    for label in labels:
        measures = records[label].measures
        assert measures["top1_digit"] > 60
        assert measures["rmse_ink"] < 0.8
        assert records[label].headline.name == "top1_digit"
    terms = {name for name in records["kd"].curves if name.startswith("loss/")}
    assert terms == {
        "loss/digit/ce",
        "loss/digit/kd",
        "loss/ink/ce",
        "loss/ink/kd",
    }
    assert "loss/hint" in records[labels[3]].curves  # features are matched once


def test_numbers_are_standardised_for_training_and_restored_after():
    dataset = next(d for d in TABULAR if d.name == "diabetes")
    data = dataset.load(None, False)
    recipe = Recipe(batch_size=331, drop_last=True)
    feed = Feed(data, dataset.task, recipe, 0, torch.device("cpu"))
    step = feed.at(0, 0)
    assert step.targets.mean().abs() < 1e-5
    assert step.targets.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(
        feed.restored(step.targets), data.train.targets[step.index]
    )


def test_of_several_heads_only_the_numbers_are_standardised():
    data = DIGITS_AND_INK.load(None, False)
    recipe = Recipe(batch_size=100)
    feed = Feed(data, DIGITS_AND_INK.task, recipe, 0, torch.device("cpu"))
    step = feed.at(0, 0)
    raw = data.train.targets[step.index]
    assert torch.equal(step.targets[:, 0], raw[:, 0])
    assert not torch.allclose(step.targets[:, 1], raw[:, 1])
    outputs = torch.cat([torch.zeros(100, 10), step.targets[:, 1:]], 1)
    torch.testing.assert_close(feed.restored(outputs)[:, 10], raw[:, 1])


def test_a_student_without_gradients_fits_the_strategys_target(run):
    labels = ["scratch", "kd", "hard_pseudo_label", "label_smoothing", "ensemble_kd"]
    records = run("digits", "net-centroids", *labels)
    for label in labels:
        record = records[label]
        assert record.status == "finished", record.reason
        assert record.measures["top1"] > 75
        assert record.measures["macs"] is None
        assert record.measures["parameters"] == 0
        assert record.measures["latency_ms"] > 0  # timed as trained
        assert len(record.curves["top1"]) == 1
        assert record.cost["student_epochs"] == 1
        forwards = {"kd": 2, "hard_pseudo_label": 2, "ensemble_kd": 6}  # 2 batches
        assert record.cost["teacher_forwards"] == forwards.get(label, 0)
    bits = {json.dumps(r.weights_sha256) for k, r in records.items() if k in labels}
    assert len(bits) == 5  # every target is another


@pytest.mark.parametrize("label", ["kd", "scratch"])
def test_fitting_gives_the_same_bits_again(run, label):
    first = run("digits", "net-centroids", label)[label]
    assert run("digits", "net-centroids", label)[label].id == first.id


def test_what_gives_no_target_is_skipped_with_a_sentence(run):
    records = run("digits", "net-centroids", "fitnet", "dml", "split_transfer")
    for label in ("fitnet", "dml", "split_transfer"):
        assert records[label].status == "skipped"
        assert "centroids is fitted without gradients" in records[label].reason


def test_a_teacher_without_gradients_teaches_networks(run):
    records = run("digits", "centroids-net", "kd", epochs=4)
    assert records["teacher"].measures["top1"] > 75
    assert records["kd"].measures["top1"] > 65


def test_a_teacher_without_probabilities_gives_only_labels(run):
    records = run("digits", "margins-net", "kd", "hard_pseudo_label")
    assert records["kd"].status == "skipped"
    assert "margins gives no probabilities" in records["kd"].reason
    assert "hard_pseudo_label" in records["kd"].reason
    assert records["hard_pseudo_label"].status == "finished"


def test_a_student_made_from_its_teacher_starts_there(run):
    records = run("digits", "net-copy", "scratch", "split_transfer")
    fresh = run("digits", "net-net", "scratch")["scratch"]
    first = records["scratch"].curves["top1"][0]
    assert first > records["teacher"].measures["top1"] - 3
    assert first > fresh.curves["top1"][0] + 10
    assert "all students would be one" in records["split_transfer"].reason


def test_what_is_deployed_is_what_is_measured_and_kept(run, tmp_path):
    from safetensors.torch import load_file

    record = run("digits", "net-rounded", "scratch")["scratch"]
    [path] = (tmp_path / "other" / "weights").glob(f"{record.id}*")
    for value in load_file(path).values():
        assert torch.equal(value, value.bfloat16().float())
    assert "latency_ms" not in record.measures  # timed later, on an idle machine


def test_a_model_trained_elsewhere_is_measured_and_not_trained(run, tmp_path):
    from safetensors.torch import load_file

    teacher = run("digits", "bought-net", "kd")["teacher"]
    [path] = (tmp_path / "other" / "weights").glob(f"{teacher.id}*")
    assert all((value == 0.5).all() for value in load_file(path).values())
    assert teacher.measures["top1"] < 15
    assert teacher.curves == {}
    assert teacher.cost["student_epochs"] == 0


def test_a_second_teacher_that_fails_costs_only_who_learns_from_it(run):
    labels = ("scratch", "kd", "ensemble_kd")
    records = run("digits", "partly", *labels, failures=2)
    assert records["scratch"].status == records["kd"].status == "finished"
    assert records["ensemble_kd"].status == "failed"
    assert "its teacher broken #0 failed" in records["ensemble_kd"].reason


def test_every_teacher_and_student_of_a_pair_is_asked(run):
    records = run("digits", "mixed", "kd", "ensemble_kd[teachers=2]", "dml")
    assert records["kd"].status == "finished"
    assert "margins gives no probabilities" in records["ensemble_kd[teachers=2]"].reason
    assert "centroids is fitted" in records["dml"].reason


def test_numbers_need_no_probabilities(other):
    suite = Suite(
        name="other",
        datasets=("diabetes", "digits"),
        pairs=("margins-net",),
        strategies=("kd",),
        seeds=1,
    )
    skipped = make_plan(suite, other, {}).skipped
    assert {(run.dataset, run.label) for run, _ in skipped} == {("digits", "kd")}


def test_a_teacher_of_one_head_is_not_asked_for_several(run):
    records = run("digits_and_ink", "centroids-net", "kd")
    for label in ("scratch", "kd"):
        assert "centroids has one head" in records[label].reason


def test_what_is_fitted_sees_every_item_once_and_in_order():
    data = DIGITS.load(None, False)
    recipe = Recipe(batch_size=1000, drop_last=True, crop_padding=2)
    feed = Feed(data, DIGITS.task, recipe, 3, torch.device("cpu"))
    index = torch.cat([step.index for step in feed.in_order()])
    assert torch.equal(index, torch.arange(1347))
    inputs = torch.cat([step.inputs for step in feed.in_order()])
    plain = (data.train.inputs - data.mean[0]) / data.std[0]
    torch.testing.assert_close(inputs, plain)
