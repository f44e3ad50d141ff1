"""Settings of one strategy computed as one: the same weights, and nobody harmed."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kdbench.engine.family import Family, kin
from kdbench.engine.learner import SPOILED

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from stacking import Adapted, Group, Plain, assert_alike, both


@dataclass(frozen=True, kw_only=True)
class Scaled(Plain):
    """Its loss, so many times."""

    scale: float = 1.0

    def loss(self, batch):
        return {k: v * self.scale for k, v in super().loss(batch).items()}


@dataclass(frozen=True, kw_only=True)
class Choosing(Scaled):
    """Python looks at the number, which is one for each of a family."""

    def loss(self, batch):
        if self.scale > 1:
            return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}
        return super().loss(batch)


@dataclass(frozen=True, kw_only=True)
class Writing(Scaled):
    def loss(self, batch):
        batch.teacher.logits.add_(1)
        return super().loss(batch)


@pytest.fixture
def computed(monkeypatch):
    """How many learners each loss that was computed as one was for."""
    sizes = []
    terms = Family.terms

    def counting(self, *given):
        found = terms(self, *given)
        sizes.append(len(self.learners))
        return found

    monkeypatch.setattr(Family, "terms", counting)
    return sizes


GRID = [(t, w) for t in (1.0, 2.0, 4.0) for w in (0.1, 0.9)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_grid_of_kd_equals_one_by_one(host, tmp_path, computed, precision):
    def make():
        for t, w in GRID:
            values = {"temperature": t, "kd_weight": w}
            yield f"kd {t} {w}", host.strategy("kd").configured(values)
        yield "sp", host.strategy("sp").configured({})

    group = Group().recipe.model_copy(update={"precision": precision})
    for one, two in both(tmp_path, make, group):
        assert_alike(one, two, 1e-5 if precision == "float32" else 1e-2)
    assert set(computed) == {len(GRID)}


def test_features_are_slices_too(tmp_path, computed):
    def make():
        return [(f"scaled {s}", Scaled(scale=s)) for s in (0.5, 1.0)]

    for one, two in both(tmp_path, make):
        assert_alike(one, two)
    assert set(computed) == {2}


def test_what_looks_at_its_numbers_goes_one_by_one(tmp_path, computed):
    def make():
        return [(f"choosing {s}", Choosing(scale=s)) for s in (0.5, 2.0)]

    for one, two in both(tmp_path, make):
        assert_alike(one, two)
    assert computed == []


def test_one_that_is_not_finite_harms_nobody(tmp_path, computed):
    group = Group()
    wild, *others = [
        group.learner(Scaled(scale=s), str(s)) for s in (float("inf"), 0.5, 1.0)
    ]
    group.train(wild, *others, folder=tmp_path)
    assert "not finite" in wild.failure
    assert computed.count(3) == group.feed.steps  # it is gone after the first epoch
    known = Group()
    alone = [known.learner(x.strategy, x.run.label) for x in others]
    known.train(*alone, folder=tmp_path)
    for one, two in zip(others, alone, strict=True):
        assert_alike(one, two)


def test_who_writes_to_what_is_shared_fails_and_others_go_on(tmp_path):
    group = Group()
    bad = [group.learner(Writing(scale=s), f"bad {s}") for s in (0.5, 1.0)]
    good = group.learner(Plain(), "good")
    group.train(*bad, good, folder=tmp_path)
    assert [x.failure for x in bad] == [SPOILED] * 2
    known = Group()
    alone = known.learner(Plain(), "good")
    known.train(alone, folder=tmp_path)
    assert_alike(good, alone)


def test_kin_are_alike_but_for_plain_numbers_that_stay(host):
    group = Group()

    def key(name, **values):
        return kin(group.learner(host.strategy(name).configured(values)))

    assert key("kd", temperature=2.0) == key("kd", temperature=3.0)
    assert key("kd") != key("dist")
    assert key("kd", temperature="4->1") is None
    assert key("fitnet") is None  # adapters of its own
    assert key("scratch_few_labels") is None  # and labels
    assert kin(group.learner(Adapted())) is None


def test_curves_and_costs_are_handed_over_whenever_they_are_read(tmp_path):
    group = Group()
    learners = [group.learner(Scaled(scale=s), str(s)) for s in (0.5, 1.0)]
    seen = []

    def stop():
        seen.append([deepcopy(x.trace.state()) for x in learners])
        return False

    group.train(*learners, folder=tmp_path, stop=stop)
    steps = group.feed.steps
    for k, states in enumerate(seen[: steps - 1]):
        for state in states:
            assert state["counts"] == {"ce": k + 1, "kd": k + 1}
            assert state["sums"]["ce"] > 0
            assert state["cost"]["own_s"] > 0
    half, whole = (x.trace.curves["loss/ce"][0] for x in learners)
    assert half == pytest.approx(whole / 2, rel=0.2)
    assert torch.isfinite(torch.tensor([half, whole])).all()
