"""Which recipe and which setting of a strategy a published number belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

import kdbench.report.published as known
from kdbench.config import read_suite
from kdbench.records import Recipe
from kdbench.report.recipes import is_published_setting, unlike

FIELD = Recipe(crop_padding=4, flip=True)
SUITES = Path(known.__file__).parents[1] / "suites"


@pytest.mark.parametrize("pair", ["resnet32x4-resnet8x4", "vgg13-mobilenetv2"])
def test_the_packaged_cifar_suite_is_the_fields_recipe(pair):
    recipe = read_suite(SUITES / "cifar100.toml").recipe
    teacher, student = pair.split("-")
    cells = known.cells("cifar100", pair)
    assert unlike(cells["kd"][0], recipe.of(student)) == ""
    assert unlike(cells["teacher"][0], recipe.of(teacher)) == ""
    other = recipe.of("vgg8" if student == "mobilenetv2" else "mobilenetv2")
    assert "lr" in unlike(cells["kd"][0], other)


def test_the_packaged_imagenet_suite_is_the_fields_recipe():
    recipe = read_suite(SUITES / "imagenet.toml").recipe
    entry = known.cells("imagenet", "resnet34-resnet18")["kd"][0]
    assert unlike(entry, recipe.of("torchvision:resnet18")) == ""
    doubled = recipe.model_copy(update={"batch_size": 512, "lr": 0.2})
    assert unlike(entry, doubled) == ""
    too_slow = doubled.model_copy(update={"lr": 0.1})
    assert unlike(entry, too_slow) == "lr 0.1 (theirs 0.2)"


@pytest.mark.parametrize(
    ("dataset", "label", "is_it"),
    [
        ("cifar100", "kd", True),
        ("cifar100", "kd[temperature=1]", False),
        ("imagenet", "kd", False),
        ("imagenet", "kd[kd_weight=0.5,temperature=1,ce_weight=0.5]", True),
        ("imagenet", "kd[temperature=1]", False),
        ("imagenet", "at", True),
        ("imagenet", "at[at_weight=1]", False),
    ],
)
def test_the_setting_that_a_number_belongs_to(dataset, label, is_it):
    assert is_published_setting(dataset, label.partition("[")[0], label) is is_it


def test_the_packaged_imagenet_suite_has_the_published_settings():
    """Each in it compares with its published number."""
    for label in read_suite(SUITES / "imagenet.toml").strategies:
        assert is_published_setting("imagenet", label.partition("[")[0], label)


def test_the_zoos_numbers_are_of_another_recipe():
    entries = known.cells("cifar100", "resnet110-resnet20")["kd"]
    found = {entry.source: unlike(entry, FIELD) for entry in entries}
    assert "theirs is 200 epochs" in found.pop("KD-Zoo")
    assert set(found.values()) == {""}


def test_an_unlike_schedule_is_named_without_its_milestones():
    entry = known.cells("cifar100", "resnet56-resnet20")["kd"][0]
    ours = FIELD.model_copy(update={"schedule": "cosine", "milestones": (1,)})
    assert unlike(entry, ours) == "schedule cosine (theirs step)"


@pytest.mark.parametrize(
    ("epochs", "says"), [(240, ""), (20, "teacher epochs 20 (theirs 240)")]
)
def test_the_teachers_epochs_are_held_against_the_fields(epochs, says):
    entry = known.cells("cifar100", "resnet56-resnet20")["kd"][0]
    assert unlike(entry, FIELD.model_copy(update={"teacher_epochs": epochs})) == says
