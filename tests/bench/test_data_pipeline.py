"""CIFAR batches ready for training: Feed against PIL images through a DataLoader."""

from __future__ import annotations

import time

import pytest
import torch
from naive import PilImages
from pairs import measured
from rows import Row, facts
from torch.utils.data import DataLoader
from workload import BATCH, IMAGES, Workload

from kdbench.engine.feed import Feed

ITEMS = 12_800
PAIRS = 9


def microseconds(batches):
    """Of this process's processor time, per sample, for one epoch of them.

    On an idle machine that is the time by the clock, as both run in one thread.
    """
    started = time.process_time()
    items = sum(len(inputs) for inputs in batches)
    assert items == ITEMS
    return {"total": (time.process_time() - started) / ITEMS * 1e6}


@pytest.mark.benchmark(group="data")
def test_cifar_batches(reached, benchmark):
    work = Workload(side="ours", teacher="", student="", train_items=ITEMS)
    task = work.dataset().task
    feed = Feed(work.data(), task, work.recipe(), 0, torch.device("cpu"))
    kind = IMAGES["cifar"]
    loader = DataLoader(PilImages(*kind.drawn(ITEMS), kind), BATCH, shuffle=True)
    epochs = iter(range(10**6))  # a new one each time: its draws are part of the work

    def ours():
        epoch = next(epochs)
        return microseconds(feed.at(epoch, s).inputs for s in range(feed.steps))

    def naive():
        return microseconds(inputs for inputs, _ in loader)

    sides = {"ours": ours, "naive": naive}
    pairs = benchmark.pedantic(measured, args=(sides, PAIRS), rounds=1)
    row = Row(
        name="CIFAR batch ready for training, one thread",
        bar=20,
        aim=45,
        unit="us/sample",
        **facts(pairs, "ours"),
    )
    reached(row)
