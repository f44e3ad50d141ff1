"""Every strategy on every CIFAR-100 pair of the field: one step."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from kdbench import suites
from kdbench.api import Data, Split
from kdbench.config import changed, read_suite
from kdbench.engine.build import build_students
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import Saver, train
from kdbench.engine.teacher import TeacherStage
from kdbench.models.pairs import CROSS_FAMILY, SAME_FAMILY
from kdbench.models.taps import TappedModel
from kdbench.plan import make_plan

FIELD = read_suite(Path(suites.__file__).parent / "cifar100.toml")
PAIRS = [f"{teacher}-{student}" for teacher, student in (*SAME_FAMILY, *CROSS_FAMILY)]
ITEMS = 4
RECIPE = {"batch_size": ITEMS, "epochs": 1, "lr": 1e-6, "lr_by_model": {}}


def in_lockstep(host) -> list[str]:
    """Every strategy that learns by gradients in the engine's own loop."""
    offers = [offer.thing for offer in host.all("strategies")]
    return [
        strategy.name
        for strategy in offers
        if strategy.teaches("gradient")
        and not strategy.drives_itself()
        and "classification" in strategy.tasks
        and strategy.name not in ("patient_kd", "tinybert_attention")  # Transformers'
    ]


def test_the_suite_holds_the_13_pairs():
    assert list(FIELD.pairs) == PAIRS
    assert len(PAIRS) == 13


SHORT = {
    "ab": "ab[ab_epochs=1]",
    "fsp": "fsp[fsp_epochs=1]",
    "ft": "ft[paraphraser_epochs=1]",
}
"""First phases of one epoch: one step of four images."""


def suite_of(host, pairs):
    names = [SHORT.get(name, name) for name in in_lockstep(host)]
    return changed(FIELD, {"strategies": names, "pairs": pairs, "seeds": 1, **RECIPE})


@pytest.mark.slow
def test_only_flows_between_stages_of_other_widths_are_refused(host):
    plan = make_plan(suite_of(host, PAIRS), host, {})
    refused = {run.pair: (run.strategy, why) for run, why in plan.skipped}
    assert len(plan.skipped) == len(refused) == 7
    for strategy, why in refused.values():
        assert strategy == "fsp"
        assert "equally wide" in why


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_one_step_of_every_strategy(host, tmp_path, pair):
    """Of every phase: finite terms, and a gradient for every weight that learns."""
    suite = suite_of(host, [pair])
    groups = make_plan(suite, host, {}).todo
    [group] = [g for g in groups if not g.runs[0].is_teacher]
    dataset = host.dataset("cifar100")
    feed = Feed(_data(), dataset.task, suite.recipe, 0, torch.device("cpu"))
    teachers = [_teacher(host, run, dataset) for run in group.teachers]
    ids = [run.id for run in group.teachers]
    for run in group.runs:
        if run.strategy == "semckd" and pair.startswith("resnet50"):
            continue  # its authors' projections of 2048 channels take 10 GB to train
        strategy = host.strategy(run.strategy).configured(run.params)
        uses = [ids.index(i) for i in run.teacher_runs[: strategy.teachers]]
        specs = [host.model(name) for name in run.students]
        learner = Learner(run, strategy, specs, teachers, uses, feed, dataset)
        reached = {}
        for name, weight in learner.modules[0].named_parameters():
            weight.register_hook(partial(reached.__setitem__, name))
        taps = strategy.taps if uses else ()
        stage = TeacherStage([TappedModel(*teacher, taps) for teacher in teachers])
        train(
            [learner],
            stage,
            feed,
            Saver(tmp_path, 60.0),
            lambda: False,
            lambda *_: None,
            lambda learner: pytest.fail(f"{learner.run.label}: {learner.failure}"),
        )
        assert learner.position == (1, 0)
        for name, _ in learner.modules[0].named_parameters():
            grad = reached.get(name)
            moved = grad is not None and bool(grad.isfinite().all() and grad.any())
            assert moved, f"{learner.run.label}: no gradient for {name}"


def _data() -> Data:
    generator = torch.Generator().manual_seed(0)
    size = (ITEMS, 3, 32, 32)
    images = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    split = Split(inputs=images, targets=torch.tensor([3, 14, 3, 99]))
    return Data(train=split, test=split, mean=(128.0,) * 3, std=(64.0,) * 3)


def _teacher(host, run, dataset):
    """Untrained, but with batch norms that know its activations, as a trained one's."""
    spec = host.model(run.students[0])
    [module] = build_students(run, [spec], dataset)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        module((_data().train.inputs.float() - 128) / 64)
    return spec, module.eval().requires_grad_(False)
