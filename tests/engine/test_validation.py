"""The validation split: held out of every batch, the same for every seed."""

from __future__ import annotations

import pytest
import torch

from kdbench.api import Data, Split, Task
from kdbench.engine.feed import Feed
from kdbench.engine.holding_out import divided
from kdbench.records import Recipe

ITEMS, CLASSES, SHARE = 60, 3, 0.2
CPU = torch.device("cpu")


def numbered(shape=(4,)):
    """Items whose every value is their number, labelled unevenly."""
    size = (ITEMS, *shape)
    inputs = torch.arange(ITEMS).view(-1, *[1] * len(shape)).expand(size).float()
    targets = (torch.arange(ITEMS) % 6).clamp(max=2)
    return inputs.contiguous(), targets


def feed_of(seed=0, shape=(4,), **recipe):
    inputs, targets = numbered(shape)
    split = Split(inputs=inputs, targets=targets)
    data = Data(train=split, test=split, mean=(0.0,), std=(1.0,))
    wanted = Recipe(**{"epochs": 1, "batch_size": 8, "validation": SHARE, **recipe})
    return Feed(data, Task(outputs=CLASSES), wanted, seed, CPU)


def held(feed):
    return torch.cat(list(feed.validation_batches())).flatten(1)[:, 0].long()


def trained(feed, epoch=0):
    steps = [feed.at(epoch, step) for step in range(feed.steps)]
    return (
        torch.cat([step.inputs.flatten(1).max(1).values for step in steps]).long(),
        torch.cat([step.targets for step in steps]),
        torch.cat([step.index for step in steps]),
    )


def test_every_item_is_trained_on_or_held_out():
    feed = feed_of()
    seen, targets, index = trained(feed)
    assert sorted([*seen.tolist(), *held(feed).tolist()]) == list(range(ITEMS))
    assert sorted(index.tolist()) == list(range(feed.items))
    labels = numbered()[1]
    assert torch.equal(targets, labels[seen])
    assert torch.equal(feed.train_targets[index], labels[seen])
    assert torch.equal(feed.validation_targets, labels[held(feed)])


@pytest.mark.parametrize("recipe", [{"crop_padding": 1}, {"flip": True}])
def test_augmented_batches_hold_no_held_out_item(recipe):
    feed = feed_of(shape=(1, 4, 4), **recipe)
    out = set(held(feed).tolist())
    for epoch in range(3):
        seen, targets, _ = trained(feed, epoch)
        assert not out & set(seen.tolist())
        assert torch.equal(targets, numbered()[1][seen])
    stored = feed.images(torch.arange(feed.items)).flatten(1)[:, 0].long()
    assert torch.equal(numbered()[1][stored], feed.train_targets)
    in_order = torch.cat([s.inputs.flatten(1)[:, 0] for s in feed.in_order()]).long()
    assert torch.equal(in_order, stored)


def test_partners_of_a_class_are_no_held_out_items():
    feed = feed_of(shape=(1, 4, 4), crop_padding=1)
    step = feed.at(0, 0)
    feed.add_views(step, ["same_class"])
    seen = step.views["same_class"].inputs.flatten(1).max(1).values.long()
    assert not set(held(feed).tolist()) & set(seen.tolist())
    assert torch.equal(numbered()[1][seen], step.targets)


def test_each_class_gives_the_same_share():
    feed = feed_of()
    labels, counts = numbered()[1], torch.bincount(numbered()[1])
    assert torch.equal(torch.bincount(labels[held(feed)]), (SHARE * counts).long())


def test_it_is_the_same_for_every_seed_and_the_rest_is_not():
    one, other = feed_of(seed=0), feed_of(seed=7)
    assert torch.equal(held(one), held(other))
    assert not torch.equal(one.at(0, 0).index, other.at(0, 0).index)


def test_nothing_is_held_out_by_default():
    feed = feed_of(validation=0.0)
    assert feed.items == ITEMS
    assert len(held(feed)) == len(feed.validation_targets) == 0
    assert Recipe().described() == Recipe(validation=0.0).described()
    assert "validation" in Recipe(validation=0.1).described()


def test_small_classes_add_up_to_the_share():
    """Ten items of a hundred classes of five are not none."""
    targets = torch.arange(500) % 100
    _, out = divided(targets, 0.1, classes=True)
    assert len(out) == 50
    assert torch.bincount(targets[out]).max() == 1
    uneven = torch.tensor([0] * 100 + [1] * 4 + [2] * 6)
    _, out = divided(uneven, 0.1, classes=True)
    assert torch.bincount(uneven[out], minlength=3).tolist() == [10, 0, 1]


@pytest.mark.parametrize("share", [0.01, 0.999])
def test_a_share_that_is_none_or_all_is_refused(share):
    targets = torch.zeros(10, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"holds out (none|all) of 10 items"):
        divided(targets, share, classes=True)


def test_numbers_are_standardised_by_what_is_trained_on():
    targets = torch.cat([torch.zeros(50, 1), torch.full((50, 1), 8.0)])
    split = Split(inputs=torch.zeros(100, 2), targets=targets)
    data = Data(train=split, test=split, mean=(0.0,), std=(1.0,))
    task = Task(kind="regression", outputs=1)
    feed = Feed(data, task, Recipe(epochs=1, validation=0.3), 0, CPU)
    rows, _ = divided(targets, 0.3, classes=False)
    expected = targets[rows].mean()
    assert feed.restored(torch.zeros(1, 1)).item() == pytest.approx(expected.item())
