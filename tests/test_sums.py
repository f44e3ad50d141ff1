"""Sums of strategies: which cannot be, and what a run of one leaves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import nn

from kdbench.api import Phase, Strategy, UserError
from kdbench.combining import combine


@dataclass(frozen=True, kw_only=True)
class First(Strategy):
    """Adapts, by its temperature."""

    name = "first"

    temperature: float = 2.0

    def adapters(self, student, teacher):
        return nn.Linear(1, 1)

    def loss(self, batch):
        return {}


@dataclass(frozen=True, kw_only=True)
class Second(Strategy):
    """Has nothing of its own."""

    name = "second"

    def loss(self, batch):
        return {}


def kind(named: str, base=Second, **members) -> type[Strategy]:
    made = type(named, (base,), {"name": named, **members})
    return dataclass(frozen=True, kw_only=True)(made)


PHASED = kind("phased", phases=lambda self: (Phase(name="early"), Phase()))
PEERED = kind(
    "peered",
    students=2,
    phases=lambda self: (
        Phase(name="early", students=(1,)),
        Phase(students=(0,), teachers=(), peers=(1,)),
    ),
)
DEPLOYS = {"deployed": lambda self, students, adapters: nn.Identity()}
TREE = kind("tree", train=lambda self, context: context.students[0])


@pytest.mark.parametrize(
    ("kinds", "values", "says"),
    [
        ([First, TREE], {}, "tree drives its own loop"),
        ([First, kind("takes", replaces_classifier=True)], {}, "takes takes the stud"),
        ([First, kind("raises", phases=lambda self: 1 / 0)], {}, "raised ZeroDiv"),
        ([First, First], {}, "name each strategy once"),
        ([First, Second], {"second.weigth": 1}, "did you mean 'second.weight'"),
        ([First, Second], {"temperature": 1}, "did you mean 'first.temperature'"),
        ([First, Second], {"second.weight": -1}, "second.weight must be >= 0, not -1"),
        ([First, Second], {"second.weight": "nan"}, "must be >= 0, not nan"),
        ([First, Second], {"second.weight": "1->-1"}, "must be >= 0"),
        ([First, Second], {"second.weight": "2 or 3"}, "second.weight=2 or 3"),
        ([First, Second], {"first.temperature": 0}, "temperature must be > 0"),
        ([PHASED, kind("p2", PHASED)], {}, "phased and p2 cannot be summed: each has"),
        ([kind("d", **DEPLOYS), kind("e", **DEPLOYS)], {}, "each deploys a network"),
        ([First, kind("few", label_fraction=0.1)], {}, "shares of the labels"),
        ([First, PEERED], {}, "first is built for the pair's teacher, and peered"),
        ([PEERED, kind("two", students=2)], {}, "two trains its students together"),
        ([First, kind("r", tasks=("regression",))], {}, "no task"),
        ([First, kind("w", weight=1.0, __annotations__={"weight": float})], {}, "own"),
    ],
)
def test_what_cannot_be_summed_is_refused(kinds, values, says):
    with pytest.raises(UserError) as caught:
        combine(kinds).configured(values)
    assert says in str(caught.value)


def test_a_part_without_teachers_needs_no_probabilities_of_them():
    alone, hard = kind("alone", teachers=0), kind("hard", needs_probabilities=False)
    assert not combine([alone, hard]).configured({}).needs_probabilities
    assert combine([Second, hard]).configured({}).needs_probabilities


@pytest.fixture(scope="module")
def sums(run_digits, tmp_path_factory):
    texts = ["kd[temperature=4->1]+fitnet[weight=0.1]", "kd+logit_mse[weight=0]"]
    texts += ["scratch+kd[weight=0]"]
    out = tmp_path_factory.mktemp("sums")
    _, records = run_digits(out, pairs=["digits-conv"], strategies=texts)
    return {r.run.label: r for r in records.values()}


def test_a_sum_trains_and_is_recorded_under_its_own_name(sums, host):
    record = sums["kd[temperature=4->1]+fitnet[weight=0.1]"]
    assert (record.status, record.family) == ("finished", "combination")
    assert record.run.params["kd.temperature"] == "4->1"
    assert record.run.params["fitnet.weight"] == 0.1
    wanted = {"loss/kd/ce", "loss/kd/kd", "loss/fitnet/ce", "loss/fitnet/hint"}
    assert set(record.curves) >= wanted
    assert record.cost["adapter_parameters"] >= 12 * 64
    made = host.strategy(record.run.strategy).configured(record.run.params)
    assert made.values() == record.run.params
    assert "soft-targets" in record.plugin["distribution"]
    assert "feature-matching" in record.plugin["distribution"]


def test_a_part_of_weight_zero_changes_no_bit(sums):
    for label, alone in (
        ("kd+logit_mse[weight=0]", "kd"),
        ("scratch+kd[weight=0]", "scratch"),
    ):
        assert sums[label].weights_sha256 == sums[alone].weights_sha256
        assert sums[label].id != sums[alone].id
