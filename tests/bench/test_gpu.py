"""A whole table of sixteen strategies on one GPU, projected from measured epochs."""

from __future__ import annotations

import math
import os

import pytest
import torch
from pairs import started
from rows import Row
from workload import BATCH, TABLE, Workload

SIXTEEN = (
    *TABLE,
    *((name, {}) for name in ("dkd", "dist", "logit_standardization", "srrl", "ofd")),
)
EPOCHS = 240


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_sixteen_strategies_of_240_epochs(reached, benchmark):
    work = Workload(
        side="ours",
        teacher="resnet32x4",
        student="resnet8x4",
        methods=SIXTEEN,
        precision="bfloat16",
        threads=os.cpu_count() or 1,
        device="cuda",
        test_items=10_000,
    )
    steps = math.ceil(work.train_items / BATCH)
    with started([work]) as [side]:
        side.visit(steps=steps + 2)  # graphs are captured, and an epoch has ended
        spent = benchmark.pedantic(side.visit, kwargs={"steps": steps}, rounds=1)
    minutes = EPOCHS * steps * spent["total"] / 60
    row = Row(
        name=f"16 strategies, {EPOCHS} epochs, {torch.cuda.get_device_name()}",
        value=minutes,
        bar=30,
        aim=15,
        kind="amount",
        better="lower",
        ours=minutes,
        unit="min",
    )
    reached(row, seconds_per_step={name: spent[name] for name in work.labels()})
