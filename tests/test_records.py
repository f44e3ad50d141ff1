"""Recipes: the learning rate over a training, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench import suites
from kdbench.config import read_suite
from kdbench.records import Recipe

SUITES = Path(suites.__file__).parent


@pytest.mark.parametrize(
    ("model", "start"),
    [
        ("resnet8x4", 0.05),
        ("vgg8", 0.05),
        ("mobilenetv2", 0.01),
        ("shufflenetv1", 0.01),
        ("shufflenetv2", 0.01),
    ],
)
def test_the_fields_recipe_over_all_240_epochs(model, start):
    """lr 0.05, or 0.01 for the mobile nets; x0.1 after epochs 150, 180 and 210."""
    recipe = read_suite(SUITES / "cifar100.toml").recipe.of(model)
    expected = [start] * 150 + [start / 10] * 30 + [start / 100] * 30
    expected += [start / 1000] * 30
    assert recipe.epochs == 240
    for epoch, lr in enumerate(expected):
        for fraction in (0.0, 0.5, 781 / 782):
            assert recipe.lr_at(epoch + fraction) == pytest.approx(lr, rel=1e-12)


def test_the_fields_recipe_is_the_default_one_with_crops_and_flips():
    recipe = read_suite(SUITES / "cifar100.toml").recipe
    field = Recipe(crop_padding=4, flip=True)
    assert recipe.of("resnet8x4") == field
    assert (field.batch_size, field.momentum, field.nesterov) == (64, 0.9, False)
    assert (field.weight_decay, field.precision) == (5e-4, "float32")
    assert (field.optimiser, field.drop_last) == ("sgd", False)


def test_the_imagenet_recipe():
    recipe = read_suite(SUITES / "imagenet.toml").recipe
    rates = [recipe.lr_at(e) for e in (0, 29.9, 30, 59.9, 60, 89.9, 90, 99.9)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4])
    assert (recipe.epochs, recipe.batch_size) == (100, 256)
    assert (recipe.weight_decay, recipe.resized_crop, recipe.image_size) == (
        1e-4,
        True,
        224,
    )


def test_one_cycle_rises_to_the_rate_and_falls_to_zero():
    recipe = Recipe(epochs=10, lr=0.4, schedule="one-cycle", rise=0.25)
    rates = [recipe.lr_at(e) for e in (0, 1.25, 2.5, 6.25, 10)]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.0])


def test_a_rate_of_a_model_is_resolved_and_forgotten():
    recipe = Recipe(lr=0.5, lr_by_model={"a": 0.1})
    assert (recipe.of("a").lr, recipe.of("b").lr) == (0.1, 0.5)
    assert recipe.of("b") == Recipe(lr=0.5)


def test_the_sentence_names_every_augmentation():
    recipe = Recipe(
        crop_padding=4,
        flip=True,
        cutout=8,
        rand_augment=(2, 10),
        resized_crop=True,
        image_size=224,
        precision="bfloat16",
    )
    said = recipe.sentence()
    for words in (
        "crop with padding 4",
        "horizontal flip",
        "cutout 8",
        "RandAugment(2, 10)",
        "resized crop to 224",
        "bfloat16",
    ):
        assert words in said


def test_the_sentence_names_the_rates_of_models():
    said = Recipe(lr=0.05, lr_by_model={"mobilenetv2": 0.01}).sentence()
    assert "lr 0.05, 0.01 for mobilenetv2 (" in said


def test_an_assistant_keeps_its_own_rate():
    """It trains by its own model's rate; the table it stands in is the student's."""
    recipe = Recipe(lr=0.05, lr_by_model={"small": 0.01})
    resolved = recipe.of("small", "middle", "small")
    assert (resolved.lr, resolved.lr_by_model) == (0.01, {"middle": 0.05})
    assert resolved.of("middle").lr == 0.05
    assert recipe.of("small").lr_by_model == {}
    assert recipe.of("big", "middle").lr_by_model == {}
