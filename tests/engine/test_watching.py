"""What a step reads and keeps beyond tensors is noticed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from kdbench.api import Batch, ExtraView, Outputs
from kdbench.data.digits import DIGITS
from kdbench.engine.watching import python_state, watching


class Owner:
    """A strategy, as far as its attributes go."""


def batch_of(kind):
    nothing = torch.zeros(2)
    return kind(
        task=DIGITS.task,
        inputs=nothing,
        targets=nothing,
        index=nothing,
        labelled=nothing,
        students=(Outputs(nothing),),
        teachers=(),
        adapters=None,
        progress=0.5,
        epoch=3.0,
        generator=torch.Generator(),
        views={"mixup": ExtraView(nothing, nothing, nothing, (), ())},
    )


def test_a_watched_batch_is_a_batch_and_tells_what_is_read():
    kind, read = watching()
    batch = batch_of(kind)
    assert isinstance(batch, Batch)
    assert batch.student.logits is batch.targets
    copy = dataclasses.replace(batch, targets=torch.ones(2))
    assert read == set()
    assert copy.epoch == 3.0
    assert read == {"epoch"}
    assert (batch.progress, batch.generator.device) == (0.5, torch.device("cpu"))
    assert read == {"epoch", "progress", "generator"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.epoch = 4.0


def test_the_heads_of_a_watched_batch_are_watched():
    kind, read = watching()
    batch = batch_of(kind)
    parts = [part for _, part in batch.heads()]
    assert read == set()
    assert parts[0].progress == 0.5
    assert read == {"progress"}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "_count", 1),
        lambda m: m._names.append("x"),
        lambda m: m._table["inner"].append(1),
        lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.detach().clone())),
        lambda m: setattr(m[1], "running_mean", torch.zeros(2)),
        lambda m: torch.rand(1, generator=m._stream),
    ],
)
def test_what_python_keeps_is_noticed(change):
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module._count, module._names, module._table = 0, ["y"], {"inner": [0]}
    module._stream = torch.Generator()
    owner = Owner()
    before = python_state(owner, module)
    module(torch.randn(4, 2))  # changes what buffers hold, in place
    assert python_state(owner, module) == before
    change(module)
    assert python_state(owner, module) != before
