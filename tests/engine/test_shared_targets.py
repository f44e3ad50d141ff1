"""What is made of a teacher's answer once for all: shared, charged, never spoiled."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kdbench.api import Outputs
from kdbench.batches import Shared
from kdbench.combining import combine
from kdbench.plugins import Host
from kdbench.testing import Given


class Counted:
    """A function that counts its calls, and shows whether gradients were on."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, tap, factor=1):
        self.calls += 1
        assert not torch.is_grad_enabled()
        return factor * outputs.features[tap]


@pytest.fixture
def make():
    return Counted()


@pytest.fixture
def answer():
    features = {"stage1": torch.ones(4, 3), "pooled": torch.ones(4, 2)}
    return Outputs(torch.zeros(4, 5), features)


def test_equal_questions_are_answered_once(answer, make):
    first = answer.once(make, "stage1", 2)
    assert answer.once(make, "stage1", 2) is first
    assert make.calls == 1
    assert torch.equal(first, torch.full((4, 3), 2.0))


@pytest.mark.parametrize("other", [2.0, 3, True, -0.0], ids=str)
def test_other_questions_are_not(answer, make, other):
    """Also where Python calls the arguments equal: results may differ in their bits."""
    equal = {2.0: 2, True: 1, -0.0: 0.0}.get(other, other)
    first = answer.once(make, "stage1", equal if other != 3 else 2)
    assert answer.once(make, "stage1", other) is not first
    assert answer.once(make, "pooled", other) is not first
    assert make.calls == 3


def test_two_functions_have_two_values(answer):
    makes = Counted(), Counted()
    first, second = (answer.once(make, "stage1") for make in makes)
    assert [make.calls for make in makes] == [1, 1]
    assert first is not second


def test_a_tuple_may_be_made(answer):
    def both(outputs):
        return outputs.logits.exp(), (outputs.logits,)

    first, (second,) = answer.once(both)
    assert second is answer.logits
    assert [id(x) for x in answer.shared.tensors()] == [id(first), id(second)]


@pytest.mark.parametrize("made", [None, 3.0, [torch.zeros(1)]], ids=str)
def test_anything_else_is_refused_each_time(answer, made):
    for _ in range(2):
        with pytest.raises(TypeError, match="a tensor or a tuple of tensors"):
            answer.once(lambda _: made)
    assert answer.shared.tensors() == []


@pytest.mark.parametrize("what", ["logits", "features"])
@pytest.mark.parametrize("live", ["leaf", "computed"])
def test_an_answer_with_gradients_is_refused(answer, make, what, live):
    tensor = torch.ones(4, 5, requires_grad=True)
    tensor = tensor if live == "leaf" else 2 * tensor
    there = tensor if what == "logits" else {"stage1": tensor}
    student = dataclasses.replace(answer, **{what: there})
    with pytest.raises(TypeError, match="this one has a gradient"):
        student.once(make, "stage1")
    assert make.calls == 0


@pytest.mark.parametrize("argument", [torch.zeros(1), torch.nn.Identity()])
def test_tensors_and_modules_are_no_arguments(answer, make, argument):
    with pytest.raises(TypeError, match="no tensors"):
        answer.once(make, "stage1", argument)


def test_what_raises_leaves_nothing(answer, make):
    with pytest.raises(KeyError):
        answer.once(make, "stage9")
    assert answer.shared.charges == {}
    answer.once(make, "stage1")
    assert len(answer.shared.charges) == 1


def test_other_tensors_come_with_a_store_of_their_own(answer, make):
    first = answer.once(make, "stage1")
    logits = dataclasses.replace(answer, logits=answer.logits.clone())
    classifier = dataclasses.replace(answer, classifier=torch.nn.Linear(2, 5))
    features = {k: 2 * v for k, v in answer.features.items()}
    features = dataclasses.replace(answer, features=features)
    for other in (logits, classifier, features):
        assert other.shared is not answer.shared
        assert other.once(make, "stage1") is not first
    assert torch.equal(features.once(make, "stage1"), 2 * first)
    assert make.calls == 4


def test_a_part_of_a_sum_has_the_same_store(answer, make):
    """With its own features only: so what it asks of all of them is its own."""
    host = Host()
    kinds = [host.get("strategies", name).thing for name in ("kd", "rkd")]
    batch = Given(torch.Generator().manual_seed(0)).batch()
    batch = dataclasses.replace(batch, teachers=(answer,))
    sum_of = combine(kinds).configured({})
    shares = [sum_of._share(batch, part).teacher for part in sum_of.parts]
    assert [list(share.features) for share in shares] == [[], ["pooled"]]
    assert all(share.shared is answer.shared for share in shares)
    value = shares[1].once(make, "pooled")
    assert shares[1].once(make, "pooled") is value

    def names(outputs):
        return outputs.logits + len(outputs.features)

    sizes = [int(one.once(names)[0, 0]) for one in (*shares, answer)]
    assert sizes == [0, 1, 2]


def test_the_store_is_neither_compared_nor_shown():
    logits = torch.zeros(1)
    one, two = Outputs(logits), Outputs(logits)
    assert one.shared is not two.shared
    assert one == two
    assert "shared" not in repr(one)


def test_charges_are_of_whoever_asks(answer, make, monkeypatch):
    """In full for each learner; made by the first who asks."""
    now = iter(range(100))
    monkeypatch.setattr("kdbench.batches.perf_counter", lambda: next(now))
    shared = Outputs(answer.logits, answer.features).shared
    answer = dataclasses.replace(answer, shared=shared)
    answer.once(make, "stage1")
    answer.once(make, "pooled")
    assert list(shared.charges.values()) == [1, 1]
    assert shared.made == list(shared.charges)
    shared.begin()
    assert (shared.charges, shared.made) == ({}, [])
    answer.once(make, "pooled")
    answer.once(make, "pooled", 3)
    assert list(shared.charges.values()) == [1, 1]
    assert shared.made == list(shared.charges)[1:]


def test_the_engine_may_bring_its_own_stopwatch(answer, make):
    answer.shared.stopwatch = lambda: lambda: "as long as it took"
    answer.once(make, "stage1")
    assert list(answer.shared.charges.values()) == ["as long as it took"]


@pytest.mark.parametrize("part", range(2))
def test_writing_to_a_value_is_noticed(answer, part):
    def both(outputs):
        return outputs.logits.exp().mul_(2), outputs.logits.clone()

    values = answer.once(both)
    assert not answer.shared.written()
    values[part].add_(1)
    assert answer.shared.written()


def test_a_store_lets_go_of_its_answer(answer, make):
    """No cycle keeps the features of past batches until the next garbage collection."""
    import gc
    import weakref

    gc.disable()
    try:
        features = {"stage1": torch.ones(2, 2)}
        outputs = Outputs(torch.zeros(2, 2), features)
        outputs.once(make, "stage1", 2)
        alive = [weakref.ref(outputs.shared), weakref.ref(features.pop("stage1"))]
        del outputs, features
        assert [ref() for ref in alive] == [None, None]
    finally:
        gc.enable()


def test_fresh_stores_know_nothing(answer):
    assert Shared(answer).tensors() == []
    assert not Shared(answer).written()


NAP = 0.01
PLUGIN = (
    f"NAP = {NAP}"
    + """
from dataclasses import dataclass
from time import sleep
import torch, torch.nn.functional as F
from kdbench import *

def gram(outputs, tap):
    rows = outputs.features[tap].flatten(1)
    return rows @ rows.T

def gram_at_leisure(outputs, tap):
    sleep(NAP)
    return gram(outputs, tap)

def gram_and_fail(outputs, tap):
    raise OverflowError("too much")

@dataclass(frozen=True, kw_only=True)
class First(Strategy):
    '''Match the Gram matrix of the batch.'''
    name = "first"
    taps = ("stage1",)
    gram_weight: float = 0.01  # >= 0; a test
    def wanted(self, batch):
        return batch.teacher.once(gram, "stage1")
    def total(self, loss):
        return loss
    def loss(self, batch):
        wanted = self.wanted(batch)
        rows = batch.student.features["stage1"].flatten(1)
        gap = F.mse_loss(rows @ rows.T / len(rows), wanted / len(rows))
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": ce, "gram": self.total(self.gram_weight * gap)}

@dataclass(frozen=True, kw_only=True)
class Spoils(First):
    '''Writes to what all share.'''
    name = "mid_spoils"
    def wanted(self, batch):
        return super().wanted(batch).mul_(0.5)

@dataclass(frozen=True, kw_only=True)
class SpoilsLater(First):
    '''Writes to a view of it, in the second epoch.'''
    name = "mid_spoils_later"
    def wanted(self, batch):
        wanted = super().wanted(batch)
        if batch.epoch >= 1:
            wanted[0].zero_()
        return wanted

@dataclass(frozen=True, kw_only=True)
class SpoilsFeatures(First):
    '''Writes to the feature from which it is made.'''
    name = "mid_spoils_features"
    def wanted(self, batch):
        batch.teacher.features["stage1"].zero_()
        return super().wanted(batch)

@dataclass(frozen=True, kw_only=True)
class Fails(First):
    '''Raises where the value is made.'''
    name = "mid_fails"
    def wanted(self, batch):
        return batch.teacher.once(gram_and_fail, "stage1")

@dataclass(frozen=True, kw_only=True)
class Asks(First):
    '''Takes the student for a teacher.'''
    name = "mid_asks"
    def wanted(self, batch):
        return batch.student.once(gram, "stage1")

@dataclass(frozen=True, kw_only=True)
class Nan(First):
    '''Loses its way.'''
    name = "mid_nan"
    def total(self, loss):
        return loss * float("nan")

@dataclass(frozen=True, kw_only=True)
class Inf(First):
    '''Explodes.'''
    name = "mid_inf"
    def total(self, loss):
        return loss * float("inf")

@dataclass(frozen=True, kw_only=True)
class Raises(First):
    '''Raises after it has asked, late.'''
    name = "mid_raises"
    def total(self, loss):
        raise ArithmeticError("no total")

@dataclass(frozen=True, kw_only=True)
class Last(First):
    '''As the first.'''
    name = "zz_last"

@dataclass(frozen=True, kw_only=True)
class Slow(First):
    '''As the first, slowly.'''
    name = "slow"
    def wanted(self, batch):
        return batch.teacher.once(gram_at_leisure, "stage1")

@hookimpl
def kdbench_strategies():
    return [Slow, First, Spoils, SpoilsLater, SpoilsFeatures, Fails, Asks, Nan, Inf,
            Raises, Last]
"""
)
REASONS = {
    "mid_spoils": "wrote in place to a tensor shared by all learners",
    "mid_spoils_later": "wrote in place to a tensor shared by all learners",
    "mid_spoils_features": "wrote in place to a tensor shared by all learners",
    "mid_fails": "OverflowError: too much",
    "mid_asks": "TypeError: once() is for a teacher's answer",
    "mid_nan": "not finite in epoch 1: ce, gram",
    "mid_inf": "not finite in epoch 1: ce, gram",
    "mid_raises": "ArithmeticError: no total",
}


@pytest.fixture(scope="module")
def run(run_digits, tmp_path_factory):
    """Train these strategies of the plugin on the convnet pair: records by label."""
    path = tmp_path_factory.mktemp("plugin") / "sharing.py"
    path.write_text(PLUGIN)
    host = Host(files=[path])

    def run(*strategies):
        out = tmp_path_factory.mktemp("out")
        pairs = ["digits-conv"]
        _, records = run_digits(out, plugins=host, strategies=strategies, pairs=pairs)
        return {r.run.label: r for r in records.values()}

    return run


@pytest.fixture(scope="module")
def alone(run):
    return run("first"), run("zz_last")


@pytest.fixture(scope="module")
def together(run):
    return run("zz_last", "first")


def test_a_shared_value_is_used_and_gives_the_same_bits(alone, together, helpers):
    for records in alone:
        for name, record in records.items():
            assert helpers["bits"](record) == helpers["bits"](together[name])


@pytest.mark.parametrize("names", [REASONS, ["mid_spoils"]], ids=["all", "spoils"])
def test_who_fails_on_it_changes_nobody_else(alone, run, helpers, names):
    """Whether the others asked before or after."""
    together = run("zz_last", *names, "first")
    for name in names:
        assert REASONS[name] in (together[name].reason or "")
    for records in alone:
        for name, record in records.items():
            assert record.status == "finished"
            assert helpers["bits"](record) == helpers["bits"](together[name])


def test_each_pays_as_if_alone_and_by_its_share(run):
    """What is made once is the teachers' work, also of the learner who had it made."""
    records = run("slow", "slow[gram_weight=0.02]")
    naps = 2 * 22 * NAP  # two epochs of 22 batches
    costs = [records[label].cost for label in ("slow", "slow[gram_weight=0.02]")]
    for cost in costs:
        assert cost["teacher_s"] > naps
        assert cost["loss_s"] < naps
        assert cost["train_s"] - cost["train_shared_s"] > naps / 2
