"""RandAugment: each operation against torchvision's, image by image, and the draws."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from kdbench.engine import rand_augment as module
from kdbench.engine.rand_augment import OPERATIONS, operated, rand_augment, strong
from kdbench.vision import torchvision

RARE = 1e-4


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(items=12, channels=3, size=(32, 40)):
    """Noise, smooth slopes, few values and one constant image, as uint8."""
    noise = torch.rand(items, channels, *size, generator=stream())
    slope = torch.linspace(0, 1, size[1]).expand_as(noise)
    images = 255 * torch.where(
        torch.arange(items)[:, None, None, None] % 2 == 0,
        noise,
        0.2 + 0.5 * slope + 0.1 * noise,
    )
    images[2:3] = (images[2:3] / 64).floor() * 64
    images[3:4] = 77
    return images.to(torch.uint8)


def reference(name, image, level):
    """torchvision's operation on one image; `level` from -1 to 1.

    Shears by an even number of tenths would end midway between two pixels.
    """
    f = torchvision("transforms.functional")
    height, width = image.shape[1:]
    strength = abs(level)

    def affine(translate=(0, 0), shear=(0.0, 0.0)):
        slope = [math.degrees(math.atan(s)) for s in shear]
        return f.affine(image, 0.0, list(translate), 1.0, slope, center=[0, 0])

    share = 150 / 331 * level
    return {
        "identity": lambda: image,
        "autocontrast": lambda: f.autocontrast(image),
        "equalize": lambda: f.equalize(image),
        "posterize": lambda: f.posterize(image, 8 - round(4 * strength)),
        "solarize": lambda: f.solarize(image, 255 * (1 - strength)),
        "brightness": lambda: f.adjust_brightness(image, 1 + 0.9 * level),
        "color": lambda: f.adjust_saturation(image, 1 + 0.9 * level),
        "contrast": lambda: f.adjust_contrast(image, 1 + 0.9 * level),
        "sharpness": lambda: f.adjust_sharpness(image, 1 + 0.9 * level),
        "rotate": lambda: f.rotate(image, 30 * level),
        "shear_x": lambda: affine(shear=(0.3 * level, 0.0)),
        "shear_y": lambda: affine(shear=(0.0, 0.3 * level)),
        "translate_x": lambda: affine((int(share * width), 0)),
        "translate_y": lambda: affine((0, int(share * height))),
    }[name]()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [1, 3, 7, 10])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_on_every_image(name, magnitude, channels):
    images = pictures(channels=channels)
    before = images.clone()
    choice = torch.full((len(images),), OPERATIONS.index(name))
    sign = 1.0 - 2.0 * (torch.arange(len(images)) % 4 < 2)
    result = operated(images, choice, sign, magnitude)
    assert result.dtype == torch.uint8
    assert torch.equal(images, before)
    for image, ours, side in zip(images, result, sign.tolist(), strict=True):
        theirs = reference(name, image, side * magnitude / 10)
        apart = (ours.int() - theirs.int()).abs()
        if name in module.GEOMETRIC:  # a rotated pixel may fall between two
            assert (apart > 0).float().mean() < 0.002
        elif name in (
            *module.ENHANCING,
            "autocontrast",
        ):  # both are cut off, not rounded
            assert apart.max() <= 1
        else:
            assert apart.max() == 0


@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {"autocontrast", "equalize"}))
def test_magnitude_zero_changes_nothing(name):
    images = pictures().clamp_(max=254)  # solarize inverts from its threshold, 255, on
    choice = torch.full((len(images),), OPERATIONS.index(name))
    assert torch.equal(operated(images, choice, torch.ones(len(images)), 0), images)


def test_in_a_batch_each_sample_gets_its_own_operation():
    images = pictures(60)
    choice = torch.randint(len(OPERATIONS), (60,), generator=stream(1))
    sign = 1.0 - 2.0 * (torch.rand(60, generator=stream(2)) < 0.5)
    together = operated(images, choice, sign, 8)
    assert len(choice.unique()) == len(OPERATIONS)
    for i in range(60):
        one = slice(i, i + 1)
        alone = operated(images[one], choice[one], sign[one], 8)
        assert torch.equal(together[one], alone)


def test_operations_are_uniform_signs_half_and_layers_independent(monkeypatch):
    drawn = []

    def note(images, choice, sign, magnitude):
        drawn.append((choice, sign))
        return images

    monkeypatch.setattr(module, "operated", note)
    rand_augment(torch.zeros(14_000, 1, 1, 1, dtype=torch.uint8), stream(), 2, 10)
    assert len(drawn) == 2
    for choice, sign in drawn:
        assert stats.chisquare(torch.bincount(choice, minlength=14)).pvalue > RARE
        assert set(sign.tolist()) == {-1.0, 1.0}
        assert stats.binomtest(int((sign > 0).sum()), 14_000).pvalue > RARE
    (first, sign), (second, _) = drawn
    for one, two in (
        (first, second),
        (first[:-1], first[1:]),
        (first, (sign > 0).long()),
    ):
        table = torch.bincount(14 * one + two, minlength=196).view(14, 14)
        table = table[:, table.any(0)]
        assert stats.chi2_contingency(table.numpy()).pvalue > RARE


def test_the_same_stream_gives_the_same_bits():
    images = pictures(32)
    for view in (rand_augment, strong):
        assert torch.equal(view(images, stream(3)), view(images, stream(3)))
        assert not torch.equal(view(images, stream(3)), view(images, stream(4)))


def test_the_strong_view_treats_equal_images_apart():
    """Of one image many times, nearly all views differ; all have a grey square."""
    image = pictures(1).clamp_(max=120)
    views = strong(image.expand(100, -1, -1, -1), stream())
    assert views.shape == (100, 3, 32, 40)
    assert views.dtype == torch.uint8
    assert len(views.flatten(1).unique(dim=0)) >= 99
    for view in views:
        assert (view == module.GREY).all(0).sum() >= 8 * 8  # a quarter, in a corner


def test_the_strong_view_is_rand_augment_and_a_square():
    images, one = pictures(20), stream()
    views = rand_augment(images, one, 3, 6)
    strongly = strong(images, stream(), 3, 6, side=6)
    differs = (strongly != views).any(1)  # (B, H, W)
    assert differs.sum((1, 2)).min() > 0
    assert differs.sum((1, 2)).max() <= 36
    assert torch.equal(strong(images, stream(), 3, 6, side=0), views)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_other_channels_are_augmented_but_not_coloured(channels):
    images = pictures(40, channels)
    assert rand_augment(images, stream(), 3).shape == images.shape
    color = torch.full((40,), OPERATIONS.index("color"))
    assert torch.equal(operated(images, color, torch.ones(40), 10), images)


def test_what_it_cannot_augment_is_refused():
    with pytest.raises(ValueError, match=r"needs uint8 images, not torch\.float32"):
        rand_augment(torch.zeros(2, 3, 8, 8), stream())
    with pytest.raises(ValueError, match=r"magnitude 11 is not in 0\.\.10"):
        rand_augment(pictures(2), stream(), 1, 11)
