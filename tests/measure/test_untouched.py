"""A measure that changes the student costs nobody but itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdbench.api import Finished, Measure
from kdbench.measure import measure_all
from kdbench.tasks import Task


def finished():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    return Finished(
        model=model,
        task=Task(outputs=4),
        device="cpu",
        sample=torch.randn(2, 3),
        logits=torch.tensor([[torch.nan, 1.0, 2.0, 3.0]]),
        targets=torch.zeros(1).long(),
        teacher_logits=None,
    )


def replaces(it):
    it.model[0].weight = nn.Parameter(torch.zeros(4, 3))


CHANGES = {
    "in place": lambda it: it.logits.zero_(),
    "by data": lambda it: it.model[0].weight.data.mul_(2),
    "answers by data": lambda it: it.logits.data.fill_(1),
    "a buffer": lambda it: it.model[1].running_mean.add_(1),
    "another parameter": replaces,
    "gradients": lambda it: it.model.requires_grad_(False),
    "a hook": lambda it: it.model.register_forward_hook(lambda *_: None),
    "the mode": lambda it: it.model.train(),
}


def measured(seen, change):
    def compute(it):
        change(it)
        return 1.0

    given = {"summary": "", "unit": "", "better": "higher"}
    first = Measure(name="meddles", compute=compute, **given)
    then = Measure(name="after", compute=lambda it: it.model[0].weight[0, 0], **given)
    return measure_all([first, then], "run", seen)


@pytest.mark.parametrize("how", CHANGES)
def test_what_a_measure_changes_is_put_back_and_told(how):
    seen = finished()
    weight = seen.model[0].weight
    before = {k: v.clone() for k, v in seen.model.state_dict().items()}
    logits = seen.logits.clone()
    values = measured(seen, CHANGES[how])
    assert values.numbers["meddles"] is None
    assert "changed the student" in values.problems[0]
    assert values.numbers["after"] == pytest.approx(float(before["0.weight"][0, 0]))
    assert seen.model[0].weight is weight
    assert weight.requires_grad
    assert not seen.model.training
    assert not seen.model._forward_hooks
    torch.testing.assert_close(seen.model.state_dict(), before)
    torch.testing.assert_close(seen.logits, logits, equal_nan=True)


def test_one_that_only_looks_is_no_offence():
    values = measured(finished(), lambda it: it.model(it.sample))
    assert values.problems == []


def test_students_made_in_inference_mode_are_measured():
    with torch.inference_mode():
        seen = finished()
    assert measured(seen, lambda it: it.logits.sum()).problems == []
