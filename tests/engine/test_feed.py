"""Batches: every item once, per-sample augmentation, balanced label masks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdbench.api import Data, Split
from kdbench.data.digits import load
from kdbench.engine.feed import Feed
from kdbench.records import Recipe
from kdbench.tasks import Task

TASK = Task(outputs=10)
CPU = torch.device("cpu")


def feed_of(seed=0, **recipe):
    return Feed(load(None, False), TASK, Recipe(epochs=2, **recipe), seed, CPU)


def test_an_epoch_visits_every_item_once():
    feed = feed_of(batch_size=100)
    index = torch.cat([feed.at(0, s).index for s in range(feed.steps)])
    assert feed.steps == 14
    assert sorted(index.tolist()) == list(range(1347))


def test_drop_last_drops_only_the_part():
    feed = feed_of(batch_size=100, drop_last=True)
    assert feed.steps == 13
    assert all(len(feed.at(0, s).index) == 100 for s in range(13))


def test_order_depends_on_seed_and_epoch_only():
    one, two = feed_of(), feed_of()
    two.at(1, 3)  # asked in another order
    assert torch.equal(one.at(0, 5).index, two.at(0, 5).index)
    assert not torch.equal(one.at(0, 5).index, one.at(1, 5).index)
    assert not torch.equal(one.at(0, 5).index, feed_of(seed=1).at(0, 5).index)


def test_inputs_are_normalised_by_the_training_set():
    feed = feed_of(batch_size=1347)
    inputs = feed.at(0, 0).inputs
    assert abs(inputs.mean().item()) < 1e-5
    assert abs(inputs.std(correction=0).item() - 1) < 1e-5


def test_crops_and_flips_equal_the_textbook_form():
    feed = feed_of(batch_size=64, crop_padding=2, flip=True)
    data = load(None, False)
    step = feed.at(0, 0)
    padded = F.pad(data.train.inputs, (2,) * 4).float()
    for item, index in zip(step.inputs, step.index, strict=True):
        candidates = [
            (crop - data.mean[0]) / data.std[0]
            for dy in range(5)
            for dx in range(5)
            for crop in (
                padded[index, :, dy : dy + 8, dx : dx + 8],
                padded[index, :, dy : dy + 8, dx : dx + 8].flip(2),
            )
        ]
        assert any(torch.allclose(item, c, atol=1e-6) for c in candidates)


def test_crops_are_uniform_and_flips_half_per_sample():
    """One marked pixel shows each item's own offset and mirror."""
    inputs = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    inputs[:, 0, 3, 2] = 1
    data = Data(
        train=Split(inputs=inputs, targets=torch.zeros(4000, dtype=torch.int64)),
        test=Split(inputs=inputs[:1], targets=torch.zeros(1, dtype=torch.int64)),
        mean=(0.0,),
        std=(1.0,),
    )
    recipe = Recipe(epochs=1, batch_size=4000, crop_padding=1, flip=True)
    seen = Feed(data, TASK, recipe, 0, CPU).at(0, 0).inputs
    rows = seen.sum((1, 3)).argmax(1)
    columns = seen.sum((1, 2)).argmax(1)
    counts = torch.bincount(rows * 8 + columns, minlength=64)
    found = counts[counts > 0]
    assert len(found) == 18  # 9 offsets, each mirrored or not
    assert ((found - 4000 / 18).abs() < 5 * (4000 / 18) ** 0.5).all()


def test_augmentation_of_vectors_is_refused():
    data = Data(
        train=Split(inputs=torch.zeros(8, 3), targets=torch.zeros(8).long()),
        test=Split(inputs=torch.zeros(8, 3), targets=torch.zeros(8).long()),
        mean=(0.0,),
        std=(1.0,),
    )
    with pytest.raises(ValueError, match="need images"):
        Feed(data, TASK, Recipe(batch_size=4, flip=True), 0, CPU)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="do not fill one batch"):
        feed_of(batch_size=2000, drop_last=True)


def test_label_masks_are_balanced_and_the_same_for_all():
    feed = feed_of()
    mask = feed.labelled(0.1)
    targets = load(None, False).train.targets
    share = torch.bincount(targets[mask]) / torch.bincount(targets)
    assert ((share - 0.1).abs() < 0.005).all()
    assert torch.equal(mask, feed_of().labelled(0.1))
    assert feed.labelled(1.0) is None


def test_the_test_set_is_whole_and_in_order():
    feed = feed_of()
    batches = torch.cat(list(feed.test_batches()))
    data = load(None, False)
    expected = (data.test.inputs.float() - data.mean[0]) / data.std[0]
    assert torch.equal(batches, expected)
    assert len(feed.sample(1000)) == 1000
