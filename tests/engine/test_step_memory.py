"""Memory that a step holds at its peak: by hand, in company, without a trace."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from kdbench.api import Phase, Strategy
from kdbench.data.digits import DIGITS
from kdbench.engine import learner
from kdbench.engine.learner import Learner
from kdbench.engine.live_bytes import LiveBytes
from kdbench.engine.teacher import weights_hash
from kdbench.models.mlp import mlp

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from costing import RECIPE, Bench, Plain


class Forgets(Plain):
    """Its adapters are not its loss's business."""

    def adapters(self, student, teacher):
        return nn.Linear(3, 3)


class Asks(Plain):
    """Has something large made of the teacher's answer, once for all."""

    def loss(self, batch):
        made = batch.teacher.once(large)
        return {
            **super().loss(batch),
            "made": 0 * made.mean() * batch.student.logits[0, 0],
        }


def large(outputs):
    return outputs.logits.repeat(1, 500).cumsum(1)


class Early(Plain):
    """A training before the training."""

    def phases(self):
        return (Phase(name="first", epochs=1), Phase())


def test_live_bytes_by_hand():
    """Forward: the product goes when relu has its copy; backward adds gradients."""
    inputs, weights = torch.randn(10, 100), torch.randn(100, 1000, requires_grad=True)
    with LiveBytes() as live:
        product = inputs @ weights
        assert live.peak == 40_000
        kept = product.relu()
        view = kept.view(-1)[5:]
        torch.ones(10).add_(1)
        weights.detach().t()
        assert live.peak == 80_040
        del product
        total = view.sum()
        assert live.peak == 80_040
        total.backward()
    # relu's result, two scalars, the gradients of the view and of the product's input
    assert live.peak == 40_000 + 2 * 4 + 40_000 + 400_000
    with LiveBytes() as live:
        live.paused = True
        product = inputs @ inputs.t()
        live.paused = False
        product.add_(1)
        inputs.to_sparse().coalesce()
    assert live.peak < 10 * 100 * 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum(Strategy):
    """As simple a loss as can be."""

    name = "sum"

    def loss(self, batch):
        return {"sum": batch.student.logits.sum()}


@pytest.mark.parametrize("size", [16, 256])
def test_peak_memory_of_a_perceptron_by_hand(tmp_path, size):
    """Of a small batch it is the gradients that count, of a large one activations."""
    bench = Bench(mlp(8), mlp(32), RECIPE.model_copy(update={"batch_size": size}))
    one = bench.learner(Sum)
    bench.train(one, folder=tmp_path)
    weights = 64 * 32 + 32 + 32 * 10 + 10
    batch = size * (64 * 4 + 8 + 8)  # inputs, targets and index
    given = batch + 4 * size * 10  # and the teacher's logits
    forward = 4 * 2 * size * 32  # what goes into relu and what comes out
    # relu's result, the logits, a mask of the labelled, the loss; and the gradients
    backward = 4 * size * (32 + 10) + size + 4 + 4 * weights
    assert (forward > backward) == (size == 256)
    expected = 4 * 2 * weights + given + max(forward, backward)
    assert one.trace.bill()["peak_memory_bytes"] == pytest.approx(expected, abs=16)


def test_peak_memory_does_not_depend_on_company(host, tmp_path):
    kinds = [host.strategy(n).configured({}) for n in ("fitnet", "at", "sp", "dml")]
    kinds += [Asks(), Early(), Plain()]
    kinds = [kind for kind in kinds if kind.students == 1]
    together = Bench()
    learners = [together.learner(kind) for kind in (Asks(), *kinds)]
    together.train(*learners, folder=tmp_path)
    held = [x.trace.bill()["peak_memory_bytes"] for x in learners]
    assert held[0] == held[1 + kinds.index(Asks())]  # whoever had it made
    made = 4 * 256 * 10 * 500
    assert held[0] - held[-1] == pytest.approx(made, rel=0.05)
    for kind, size in zip(kinds, held[1:], strict=True):
        bench = Bench()
        alone = bench.learner(kind)
        bench.train(alone, folder=tmp_path)
        assert alone.trace.bill()["peak_memory_bytes"] == size, kind.name


def test_taking_the_memory_changes_no_bit(host, tmp_path, monkeypatch):
    kinds = [host.strategy(n).configured({}) for n in ("fitnet", "crd", "rkd", "vid")]

    def trained():
        bench = Bench(recipe=RECIPE.model_copy(update={"epochs": 1}))
        learners = [bench.learner(kind) for kind in kinds]
        bench.train(*learners, folder=tmp_path)
        return learners

    weighed = trained()
    monkeypatch.setattr(learner, "is_weighed", lambda *_: False)
    plain = trained()
    for one, other in zip(weighed, plain, strict=True):
        assert one.trace.bill()["peak_memory_bytes"] > 10_000
        assert other.trace.bill()["peak_memory_bytes"] is None
        assert weights_hash(one.student) == weights_hash(other.student)
        assert one.trace.curves == other.trace.curves


@pytest.mark.parametrize("company", [0, 1])
def test_memory_and_adapters_of_stacked_students_are_unknown(tmp_path, company):
    recipe = RECIPE.model_copy(update={"stack": True})
    bench = Bench(mlp(16), mlp(8), recipe)
    learners = [bench.learner(Forgets), *(bench.learner() for _ in range(company))]
    bench.train(*learners, folder=tmp_path)
    cost = learners[0].trace.bill()
    assert cost["peak_memory_bytes"] is None
    assert cost["adapters_s"] is None
    assert cost["engine_s"] > 0
    if company:
        assert learners[1].trace.bill()["adapters_s"] == 0


def test_a_graphed_learner_is_not_taken_apart(replaying, tmp_path):
    bench = Bench()
    recorder = replaying()
    made = bench.learner(Forgets)
    known = [(bench.spec, bench.teacher)]
    given = (made.run, Forgets(), [bench.small], known, [0], bench.feed, DIGITS)
    one = recorder.learner = Learner(*given, recorder)
    bench.train(one, folder=tmp_path)
    cost = one.trace.bill()
    assert recorder.did["replay"] > 0
    assert cost["graph_s"] > 0
    assert cost["adapters_s"] is None
    assert cost["peak_memory_bytes"] is None
    plain = cost["student_s"] + cost["loss_s"] + cost["backward_s"]
    assert plain + cost["graph_s"] + cost["optimiser_s"] <= cost["own_s"]
