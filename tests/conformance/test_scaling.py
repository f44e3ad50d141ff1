"""The check of weights, on losses written for it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from kdbench import Strategy
from kdbench.conformance.checks import Broken, DoesNotApply
from kdbench.conformance.gradients import weights_scale
from kdbench.conformance.scaling import refuse_interplay, scales
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss
from kdbench.testing import Given


def trained(batch, **others):
    """A subject whose training was shown this batch only."""
    look = SimpleNamespace(phase="", batch=batch)
    watch = SimpleNamespace(failure=None, looks=[look])
    return SimpleNamespace(watched=lambda: watch, loops=False, **others)


@pytest.fixture(scope="module")
def batch():
    return Given(torch.Generator().manual_seed(0)).batch()


@dataclass(frozen=True, kw_only=True)
class Weighing(Strategy):
    name = "weighing"
    ce_weight: float = 0.5
    kd_weight: float = 2.0

    def loss(self, batch):
        logits = batch.student.logits
        ce = label_loss(batch.task, logits, batch.targets)
        return self.weigh(ce, soft_kl(logits, batch.teacher.logits))

    def weigh(self, ce, kd):
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


def weigh(weigh_them, batch, **defaults):
    """All that is said of the weights of such a loss."""
    made = dataclass(frozen=True, kw_only=True)(
        type(
            "Weighs",
            (Weighing,),
            {
                "weigh": weigh_them,
                "__annotations__": dict.fromkeys(defaults, float),
                **defaults,
            },
        )
    )
    weights_scale(trained(batch, kind=made, strategy=made()))


@pytest.mark.parametrize(
    "right",
    [
        Weighing.weigh,
        lambda s, ce, kd: {"all": s.ce_weight * ce + s.kd_weight * kd},
        lambda s, ce, kd: {"all": s.ce_weight * (ce + s.kd_weight * kd)},
        lambda s, ce, kd: (
            {"ce": s.ce_weight * ce} | ({"kd": s.kd_weight * kd} if s.kd_weight else {})
        ),
        lambda s, ce, kd: {"own": ce, "ce": s.ce_weight * ce, "kd": s.kd_weight * kd},
    ],
)
def test_weights_that_scale(right, batch):
    weigh(right, batch)
    weigh(right, batch, ce_weight=0.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda s, ce, kd: {"ce": s.kd_weight * ce, "kd": s.ce_weight * kd},
            "ce_weight scales kd, and not the term 'ce'",
        ),
        (
            lambda s, ce, kd: {"ce": ce, "kd": s.kd_weight * kd},
            "no term changes with ce_weight",
        ),
        (
            lambda s, ce, kd: {"ce": s.ce_weight * ce, "kd": s.kd_weight**2 * kd},
            "'kd' is no straight line in kd_weight: 0 at 0, .* at 2, .* at 4",
        ),
        (
            lambda s, ce, kd: (
                Weighing.weigh(s, ce, kd) | {"rest": (1 - s.kd_weight) * kd}
            ),
            "the term 'rest' is scaled by 1 - kd_weight",
        ),
        (
            lambda s, ce, kd: {
                "all": (1 - s.kd_weight) * ce * s.ce_weight + kd * s.kd_weight
            },
            "the labels' part of 'all' is scaled by 1 - kd_weight",
        ),
        (
            lambda s, ce, kd: {
                "all": s.ce_weight * ce + s.kd_weight * (2 - s.ce_weight) * kd
            },
            "ce_weight and kd_weight interact in the term 'all'",
        ),
    ],
)
def test_weights_that_do_not_scale(wrong, said, batch):
    with pytest.raises(Broken, match=said):
        weigh(wrong, batch)


def test_a_weight_that_may_not_be_zero(batch):
    class Positive(Weighing):
        def __post_init__(self):
            if not self.kd_weight > 0:
                raise ValueError("kd_weight must be > 0")

    subject = SimpleNamespace(kind=Positive, strategy=Positive())
    assert scales(subject, "kd_weight", batch)
    refuse_interplay(subject, ("ce_weight", "kd_weight"), batch)


def test_without_weights_there_is_nothing_to_scale(batch):
    with pytest.raises(DoesNotApply, match="no hyper-parameter"):
        weights_scale(trained(batch, kind=Strategy))
    with pytest.raises(DoesNotApply, match="drives its own loop"):
        weights_scale(SimpleNamespace(**vars(trained(batch)) | {"loops": True}))
