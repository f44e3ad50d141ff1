"""Batches: every item once, per-sample augmentation, balanced label masks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.api import Data, Split
from kdbench.data.digits import load
from kdbench.engine.feed import Feed
from kdbench.engine.rand_augment import rand_augment
from kdbench.engine.streams import generator
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


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_and_flips_equal_the_textbook_form(channels):
    images = images_of(40, (8, 8), channels)
    step = image_feed(images, crop_padding=2, flip=True).at(0, 0)
    assert step.inputs.is_contiguous(memory_format=torch.channels_last)
    padded = F.pad(images, (2,) * 4).float()
    for item, index in zip(step.inputs, step.index, strict=True):
        candidates = [
            (crop - 100) / 50
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
    torch.testing.assert_close(batches, expected, atol=1e-6, rtol=0)
    assert len(feed.sample(1000)) == 1000


# --- augmentation by recipe ----------------------------------------------------------

ALL = {"crop_padding": 2, "flip": True, "rand_augment": (2, 10), "cutout": 4}


def images_of(items, size=(12, 12), channels=3):
    stream = torch.Generator().manual_seed(0)
    shape = (items, channels, *size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream)


def image_feed(images, seed=0, **recipe):
    targets = torch.zeros(len(images), dtype=torch.int64)
    split = Split(inputs=images, targets=targets)
    number = images.shape[1]
    data = Data(train=split, test=split, mean=(100.0,) * number, std=(50.0,) * number)
    return Feed(data, TASK, Recipe(epochs=2, batch_size=16, **recipe), seed, CPU)


@pytest.mark.parametrize("recipe", [ALL, {"resized_crop": True, "flip": True}])
def test_a_batch_is_a_function_of_seed_epoch_and_step(recipe):
    images = images_of(60)
    feed, other = image_feed(images, **recipe), image_feed(images, **recipe)
    first = feed.at(0, 1).inputs
    other.at(1, 2)
    other.at(0, 3)
    assert torch.equal(other.at(0, 1).inputs, first)
    assert torch.equal(feed.at(0, 1).inputs, first)
    assert not torch.equal(image_feed(images, 1, **recipe).at(0, 1).inputs, first)


@pytest.mark.parametrize("name", [*ALL, "resized_crop"])
def test_steps_and_epochs_draw_anew(name):
    """Of one image everywhere, no two batches of four are the same."""
    images = images_of(1).expand(32, -1, -1, -1)
    feed = image_feed(images, **{name: ALL.get(name, True)})
    batches = [feed.at(epoch, step).inputs for epoch in (0, 1) for step in (0, 1)]
    for i, one in enumerate(batches):
        assert len(one.flatten(1).unique(dim=0)) > 1  # nor all of one batch
        for two in batches[:i]:
            assert not torch.equal(one, two)


@pytest.mark.parametrize("name", ["rand_augment", "cutout"])
def test_a_further_augmentation_leaves_the_crops_as_they_are(name):
    """Each has a stream of its own; cutout's squares are the mean: zero."""
    images, crops = images_of(64), {"crop_padding": 2, "flip": True}
    plain = image_feed(images, **crops).at(0, 0)
    more = image_feed(images, **crops, **{name: ALL[name]}).at(0, 0)
    assert torch.equal(plain.index, more.index)
    same = plain.inputs == more.inputs
    if name == "cutout":
        assert torch.equal(more.inputs[~same], torch.zeros_like(more.inputs[~same]))
        assert (same.float().mean((1, 2, 3)) >= 1 - 16 / 144 - 1e-6).all()
        assert not same.all()
    else:
        stream = generator(0, "rand_augment", 0, 0)
        crops_again = (plain.inputs * 50 + 100).round().to(torch.uint8)
        expected = (rand_augment(crops_again, stream, *ALL[name]).float() - 100) / 50
        torch.testing.assert_close(more.inputs, expected, atol=1e-6, rtol=0)


def test_offsets_of_the_crops_are_independent_between_steps():
    """Batches of one image: how often it lies in the same place a step later."""
    images = torch.zeros(8000, 1, 5, 5, dtype=torch.uint8)
    images[:, 0, 2, 2] = 1
    feed = image_feed(images, crop_padding=1)
    places = torch.cat([feed.at(0, s).inputs.flatten(1).argmax(1) for s in range(500)])
    share = (places[16:] == places[:-16]).float().mean()
    assert abs(share - 1 / 9) < 5 * (8 / 81 / 8000) ** 0.5


def test_resized_crops_have_their_size_and_tests_the_centre():
    images = images_of(40, (12, 10))
    feed = image_feed(images, resized_crop=True, image_size=8)
    assert feed.at(0, 0).inputs.shape == (16, 3, 8, 8)
    centre = (images[:, :, 2:10, 1:9].float() - 100) / 50
    tests = torch.cat(list(feed.test_batches()))
    torch.testing.assert_close(tests, centre, atol=1e-6, rtol=0)
    in_order = torch.cat([step.inputs for step in feed.in_order()])
    torch.testing.assert_close(in_order, centre, atol=1e-6, rtol=0)
    assert feed.sample(50).shape == (50, 3, 8, 8)


def test_resized_crops_of_no_given_size_keep_the_images_own():
    feed = image_feed(images_of(40, (12, 10)), resized_crop=True)
    assert feed.at(0, 0).inputs.shape == (16, 3, 12, 10)
    assert feed.at(0, 2).inputs.shape == (8, 3, 12, 10)


@pytest.mark.parametrize("recipe", [{}, {"crop_padding": 2}])
def test_in_order_is_the_set_as_it_is(recipe):
    images = images_of(40)
    feed = image_feed(images, **recipe)
    inputs = torch.cat([step.inputs for step in feed.in_order()])
    expected = (images.float() - 100) / 50
    torch.testing.assert_close(inputs, expected, atol=1e-6, rtol=0)
    items = torch.tensor([3, 39, 0])
    assert torch.equal(feed.images(items), images[items])


def test_a_file_mapped_into_memory_is_neither_copied_nor_written_to(tmp_path):
    images = images_of(40)
    path = tmp_path / "images.npy"
    np.save(path, images.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it may not be written to
        mapped = torch.from_numpy(np.load(path, mmap_mode="r"))
    feed = image_feed(mapped, flip=True, rand_augment=(2, 10), cutout=4)
    assert feed._source.data_ptr() == mapped.data_ptr()
    batches = [feed.at(0, step).inputs for step in range(feed.steps)]
    list(feed.in_order())
    list(feed.test_batches())  # writing to the file's memory would end the process
    in_memory = image_feed(images, flip=True, rand_augment=(2, 10), cutout=4)
    for step, batch in enumerate(batches):
        assert torch.equal(in_memory.at(0, step).inputs, batch)


def test_normalising_floats_leaves_the_data_as_they_are():
    images = images_of(40).float()
    before = images.clone()
    feed = image_feed(images, crop_padding=1, flip=True, cutout=3)
    feed.at(0, 0)
    one = torch.cat(list(feed.test_batches()))
    assert torch.equal(torch.cat(list(feed.test_batches())), one)
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 2])
def test_images_without_colours_are_augmented(channels):
    feed = image_feed(images_of(40, channels=channels), **ALL)
    assert feed.at(0, 0).inputs.shape == (16, channels, 12, 12)
    assert feed.at(0, 0).inputs.isfinite().all()


@pytest.mark.parametrize(
    ("images", "recipe", "words"),
    [
        (torch.zeros(20, 3), ALL, "crop_padding and flip and cutout and rand_augment"),
        (images_of(20).float(), {"rand_augment": (2, 10)}, "needs images of uint8"),
        (images_of(20).float(), {"resized_crop": True}, "needs images of uint8"),
        (images_of(20), {"resized_crop": True, "crop_padding": 2}, "takes the place"),
        (images_of(20), {"resized_crop": True, "image_size": 13}, "12 x 12"),
    ],
)
def test_a_recipe_that_does_not_suit_the_inputs_is_refused(images, recipe, words):
    with pytest.raises(ValueError, match=words):
        image_feed(images, **recipe)
