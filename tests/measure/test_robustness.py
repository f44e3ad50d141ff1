"""Corruptions by their statistics, and against scipy's filter."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from kdbench.measure import measure_all
from kdbench.measure.quality import QUALITY
from kdbench.measure.robustness import SEVERITIES, blurred, change

EVERY = [
    (kind, severity, amount)
    for kind, amounts in SEVERITIES.items()
    for severity, amount in enumerate(amounts, 1)
]


def of_kind(kind):
    return [(severity, amount) for k, severity, amount in EVERY if k == kind]


def pictures(items=20, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (items, channels, 32, 32)
    return torch.randint(60, 200, shape, dtype=torch.uint8, generator=generator)


def test_severities_are_those_of_cifar_c():
    assert SEVERITIES == {
        "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    }


@pytest.mark.parametrize(("severity", "deviation"), of_kind("noise"))
def test_noise_has_its_deviation(severity, deviation):
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    added = (change("noise", severity)(grey).float() - 128) / 255
    assert added.std().item() == pytest.approx(deviation, rel=0.02)
    assert added.mean().item() == pytest.approx(0, abs=0.002)
    half = torch.full((20, 3, 32, 32), 0.5)
    added = change("noise", severity)(half) - 0.5
    assert added.std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(("severity", "deviation"), of_kind("blur"))
def test_blur_equals_scipys_filter(severity, deviation):
    images = pictures(4).double()
    deviations = (0, 0, deviation, deviation)
    expected = gaussian_filter(images.numpy(), deviations, mode="nearest", truncate=4)
    assert blurred(images, deviation).numpy() == pytest.approx(expected, abs=1e-9)
    seen = change("blur", severity)(images.to(torch.uint8)).double()
    assert (seen - torch.from_numpy(expected)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("severity", "left"), of_kind("contrast"))
def test_contrast_is_what_is_left_around_each_images_mean(severity, left):
    levels = pictures()
    images = levels.float() / 255
    seen = change("contrast", severity)(images)
    torch.testing.assert_close(seen.mean((2, 3)), images.mean((2, 3)))
    ratios = seen.std((2, 3)) / images.std((2, 3))
    torch.testing.assert_close(ratios, torch.full_like(ratios, left))
    rounded = change("contrast", severity)(levels).float()
    assert (rounded - 255 * seen).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("kind", SEVERITIES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shape_type_and_range_stay_and_the_input_too(kind, dtype):
    images = pictures(3, channels=1)
    images[:, :, :9] = 255
    images[:, :, -9:] = 0
    if dtype != torch.uint8:
        images = images.to(dtype) / 255
    before = images.clone()
    seen = change(kind, 5)(images)
    assert (seen.shape, seen.dtype) == (images.shape, dtype)
    assert seen.min() >= 0
    assert seen.max() <= (255 if dtype == torch.uint8 else 1)
    assert torch.equal(images, before)
    assert not torch.equal(seen, images)


def test_noise_is_the_same_every_time_and_new_for_each_item_and_severity():
    grey = torch.full((2, 1, 8, 8), 128, dtype=torch.uint8)
    first, again = change("noise", 1), change("noise", 1)
    one, two = first(grey), first(grey)
    assert torch.equal(again(grey), one)
    assert torch.equal(again(grey), two)
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


def test_severities_draw_noise_of_their_own():
    half = torch.full((1, 1, 32, 32), 0.5)
    drawn = [change("noise", severity)(half).flatten() for severity in range(1, 6)]
    alike = torch.corrcoef(torch.stack(drawn)) - torch.eye(5)
    assert alike.abs().max() < 0.2


@pytest.fixture
def looking(finished):
    """A student that says class 1 of a bright first pixel, else class 0."""

    def make(inputs, targets, **known):
        def answers(change):
            corner = change(inputs).flatten(1)[:, 0].float()
            return torch.stack([100.5 - corner, corner - 100.5], 1)

        logits = answers(lambda images: images)
        return finished(logits, targets, answers=answers, **known)

    return make


def test_the_numbers_are_means_of_the_lists(looking, measured):
    images = pictures(50)
    images[:, :, 0, 0] = torch.arange(76, 126)[:, None].to(torch.uint8)
    right = (images[:, 0, 0, 0] > 100).long()
    case = looking(images, right)
    assert "corruption" not in measured(case).numbers
    found = measured(case, "corruption")
    kinds = []
    for kind in SEVERITIES:
        scores = found.lists[f"corruption_{kind}_by_severity"]
        assert len(scores) == 5
        seen = change(kind, 3)(images)[:, 0, 0, 0]
        third = 100 * ((seen > 100) == (right == 1)).double().mean().item()
        assert scores[2] == pytest.approx(third)
        assert found.numbers[f"corruption_{kind}"] == pytest.approx(sum(scores) / 5)
        kinds.append(sum(scores) / 5)
    assert found.numbers["corruption"] == pytest.approx(sum(kinds) / 3)
    assert found.numbers["corruption"] < found.numbers["top1"] == 100


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(4, 10),
        torch.zeros(4, 10, dtype=torch.int64),
        torch.full((4, 1, 2, 2), 1.5),
        torch.full((4, 1, 2, 2), -0.5),
    ],
)
def test_what_is_no_image_is_null(looking, inputs):
    case = looking(inputs, torch.zeros(4).long())
    found = measure_all(QUALITY, "run", case, ["corruption"])
    assert found.numbers["corruption"] is None
    assert found.problems == []


def test_a_run_on_digits_is_less_sure_of_what_is_corrupted(run_digits, tmp_path):
    _, records = run_digits(
        tmp_path,
        pairs=["digits-mlp"],
        strategies=["scratch"],
        epochs=3,
        measures=["corruption"],
    )
    [teacher] = [r for r in records.values() if r.run.is_teacher]
    found = teacher.measures
    assert 20 < found["corruption"] < found["top1"]
    assert teacher.lists["corruption_blur_by_severity"][4] < found["top1"]
