"""Another item of the same class: drawn alike, and seen as the recipe says."""

from __future__ import annotations

import pytest
import torch

from kdbench.data.digits import DIGITS, load
from kdbench.data.tabular import TABULAR
from kdbench.engine.augment import Crops, draw_crops, draw_mirrors, flip
from kdbench.engine.classes import Classes
from kdbench.engine.feed import Feed
from kdbench.engine.streams import generator
from kdbench.plugins import Host
from kdbench.records import Recipe

CPU = torch.device("cpu")
CANCER = next(d for d in TABULAR if d.name == "breast_cancer_10")

PLUGIN = """
from dataclasses import dataclass
from kdbench import Strategy, hookimpl, label_loss

SEEN = []

@dataclass(frozen=True, kw_only=True)
class Alike(Strategy):
    '''Cross-entropy on another item of the class.'''
    name = "alike"
    paper = "a test"
    views = ("same_class",)
    tasks = ("classification", "regression")

    def loss(self, batch):
        SEEN.append(batch)
        logits = batch.views["same_class"].students[0].logits
        return {"ce": label_loss(batch.task, logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Alike]
"""


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_other_items_of_the_class_are_alike_probable():
    targets = torch.tensor([2, 0, 2, 1, 2, 0, 2])
    draws = 12_000
    for item, others in ((0, [2, 4, 6]), (4, [0, 2, 6]), (6, [0, 2, 4]), (1, [5])):
        index = torch.full((draws,), item)
        found = Classes(targets).others(index, stream(item))
        counts = torch.bincount(found, minlength=len(targets))
        assert counts.nonzero().flatten().tolist() == others
        expected = draws / len(others)
        assert (counts[others] - expected).abs().max() < 5 * expected**0.5


def test_an_item_never_stands_for_itself_unless_it_is_alone():
    targets = torch.randint(50, (400,), generator=stream())
    targets = torch.cat((targets, torch.tensor([60, 55])))  # alone in their classes
    index = torch.arange(len(targets))
    for seed in range(20):
        found = Classes(targets).others(index, stream(seed))
        assert torch.equal(targets[found], targets)
        alone = torch.bincount(targets)[targets] == 1
        assert torch.equal(found == index, alone)
        assert alone[-2:].all()


def test_draws_are_those_of_the_stream():
    classes = Classes(torch.arange(100) % 5)
    index = torch.arange(100)
    one, again = (classes.others(index, stream(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, classes.others(index, stream(4)))


def feed_of(dataset, data, **recipe):
    return Feed(data, dataset.task, Recipe(batch_size=64, **recipe), 0, CPU)


def stored(feed, view):
    """For each item seen whether it is, as stored, a training item of the class."""
    everything = feed.normalised(feed.images(torch.arange(feed.items)))
    same = (everything.flatten(1)[None] == view.flatten(1)[:, None]).all(2)
    return same.float().argmax(1), same.any(1)


@pytest.mark.parametrize("dataset", [DIGITS, CANCER], ids=lambda d: d.name)
def test_the_view_shows_other_items_of_the_same_class(dataset):
    feed = feed_of(dataset, dataset.load(None, False))
    step = feed.at(0, 3)
    feed.add_views(step, ("same_class",))
    view = step.views["same_class"]
    assert view.inputs.shape == step.inputs.shape
    where, there = stored(feed, view.inputs)
    assert there.all()
    assert torch.equal(feed.train_targets[where], step.targets)
    assert not (where == step.index).any()
    assert view.share.eq(1).all()
    assert torch.equal(view.partner, torch.arange(64))
    again = feed.at(0, 3)
    feed.add_views(again, ("same_class",))
    assert torch.equal(again.views["same_class"].inputs, view.inputs)
    other = feed.at(1, 3)
    feed.add_views(other, ("same_class",))
    assert not torch.equal(other.views["same_class"].inputs, view.inputs)


def test_partners_are_cropped_and_mirrored_by_draws_of_their_own():
    data = load(None, False)
    feed = feed_of(DIGITS, data, crop_padding=2, flip=True)
    step = feed.at(1, 2)
    plain = step.inputs.clone()
    feed.add_views(step, ("same_class",))
    assert torch.equal(step.inputs, plain)
    own = generator(0, "view", "same_class", 1, 2)
    index = Classes(data.train.targets).others(step.index, own)
    crops = Crops(data.train.inputs, 2)
    images = crops.at(crops.starts(index, *draw_crops(64, 2, own)))
    mirrors = draw_mirrors(64, own)
    assert 0 < mirrors.sum() < 64
    expected = feed.normalised(flip(images, mirrors))
    assert torch.equal(step.views["same_class"].inputs, expected)
    assert not stored(feed, expected)[1].all()


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "alike.py"
    file.write_text(PLUGIN)
    return Host(files=[file])


@pytest.mark.parametrize(
    ("dataset", "pair", "recipe", "forwards"),
    [
        ("digits", "digits-conv", {"crop_padding": 1, "flip": True}, (21, 21)),
        ("breast_cancer_10", "tabular-mlp", {}, (7, 6)),  # the inputs themselves repeat
    ],
)
def test_a_run_sees_the_view(
    alike, run_digits, tmp_path, dataset, pair, recipe, forwards
):
    """Of images and of a table; the teacher answers to it, too."""
    changes = {"datasets": [dataset], "pairs": [pair], "strategies": ["alike"]}
    _, records = run_digits(tmp_path, alike, epochs=1, **changes, **recipe)
    record, kd = records[f"{pair}/alike/0"], records[f"{pair}/kd/0"]
    assert record.status == "finished"
    assert kd.cost["teacher_forwards"] == forwards[0]
    assert record.cost["teacher_forwards"] == sum(forwards)
    assert record.weights_sha256 != records[f"{pair}/scratch/0"].weights_sha256


def test_numbers_have_no_other_items_of_a_class(alike, run_digits, tmp_path):
    changes = {"datasets": ["diabetes"], "pairs": ["split-mlp"]}
    _, records = run_digits(tmp_path, alike, epochs=1, strategies=["alike"], **changes)
    record = records["split-mlp/alike/0"]
    assert record.status == "skipped"
    assert "asks for other items of a class, and there are none" in record.reason
