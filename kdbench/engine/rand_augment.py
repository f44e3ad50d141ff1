"""RandAugment, and the strong view of semi-supervised learning, on whole batches.

Cubuk et al. 2020 (arXiv:1909.13719): a few operations in a row, each drawn uniformly
from fourteen, all at one magnitude out of 10. Every sample has its own; samples with
the same operation are worked on together. The strong view is crop, mirror,
RandAugment and cutout, as in FixMatch (Sohn et al. 2020, arXiv:2001.07685).

Full strength (10) is: rotation by 30 degrees, shear by 0.3, translation by 150/331 of
the side, enhancement by a factor of 1 +- 0.9, posterize to 4 bits, solarize from 0. The
sign of these (where there is one) is random. Pixels moved in from outside are black.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kdbench.engine.augment import (
    cutout,
    draw_centres,
    draw_mirrors,
)
from kdbench.engine.device import on_device

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCING = ("brightness", "color", "contrast", "sharpness")
OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "posterize",
    "solarize",
    *ENHANCING,
    *GEOMETRIC,
)
FULL = 10
"""The highest magnitude."""

ROTATION = math.radians(30)
SHEAR = 0.3
TRANSLATION = 150 / 331
ENHANCEMENT = 0.9
POSTERIZED_BITS = 4
GREY = 128
"""What the strong view's cutout fills with, as the views are not normalised yet."""


def rand_augment(
    images: Tensor, generator: Generator, operations: int = 2, magnitude: int = 10
) -> Tensor:
    """`operations` random operations on each of uint8 (B, C, H, W), one after another.

    Raises ValueError for inputs that are not uint8 and a magnitude outside 0..10.
    """
    for _ in range(operations):
        choice = torch.randint(len(OPERATIONS), (len(images),), generator=generator)
        sign = 1.0 - 2.0 * draw_mirrors(len(images), generator)
        images = operated(images, choice, sign, magnitude)
    return images


def strong(
    images: Tensor,
    generator: Generator,
    operations: int = 2,
    magnitude: int = 10,
    side: int | None = None,
) -> Tensor:
    """A strong view of each of uint8 (B, C, H, W): RandAugment, then cutout.

    Cutout's square is half as wide as the image unless given, and grey.
    """
    views = rand_augment(images, generator, operations, magnitude)
    centres = on_device(
        draw_centres(len(images), images.shape, generator), images.device
    )
    length = min(images.shape[2:])
    return cutout(views, centres, length // 2 if side is None else side, GREY)


def operated(images: Tensor, choice: Tensor, sign: Tensor, magnitude: int) -> Tensor:
    """One operation on each of uint8 (B, C, H, W).

    `choice` (B,) are positions in OPERATIONS and `sign` (B,) is 1 or -1, both on the
    CPU, so that no device has to be waited for to know which groups there are.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"RandAugment needs uint8 images, not {images.dtype}")
    if not 0 <= magnitude <= FULL:
        raise ValueError(f"RandAugment's magnitude {magnitude} is not in 0..{FULL}")
    strength = magnitude / FULL
    result = images.clone()
    moved = choice >= OPERATIONS.index(GEOMETRIC[0])
    groups = [(moved.nonzero().view(-1), "")]
    for position, name in enumerate(OPERATIONS[: -len(GEOMETRIC)]):
        groups.append(((choice == position).nonzero().view(-1), name))
    for members, name in groups:
        if name == "identity" or not len(members):
            continue
        amount = on_device(strength * sign[members], images.device)
        rows = on_device(members, images.device)
        part = images.index_select(0, rows)
        if name:
            done = _COLOUR[name](part, amount)
        else:
            done = moved_by(part, on_device(choice[members], images.device), amount)
        result.index_copy_(0, rows, done)
    return result


# --- operations on the place of pixels -----------------------------------------------


def moved_by(images: Tensor, choice: Tensor, amount: Tensor) -> Tensor:
    """Rotation about the centre, shear about the top left corner, or translation.

    All in one pass of the nearest pixel, from amounts (B,) of -1 to 1. A positive one
    rotates counter-clockwise, and moves right or down; a positive shear moves left or
    up what is further down or right.
    """
    height, width = images.shape[2:]
    is_on = {
        name: (choice == OPERATIONS.index(name)).to(amount.dtype) * amount
        for name in GEOMETRIC
    }
    angle = is_on["rotate"] * ROTATION
    shear_x, shear_y = is_on["shear_x"] * SHEAR, is_on["shear_y"] * SHEAR
    right = (is_on["translate_x"] * TRANSLATION * width).trunc()
    down = (is_on["translate_y"] * TRANSLATION * height).trunc()
    # the source of a pixel, both counted in pixels from the centre
    to_x = [
        angle.cos(),
        shear_x - angle.sin(),
        shear_x * height / 2 - right,
    ]
    to_y = [
        shear_y + angle.sin(),
        angle.cos(),
        shear_y * width / 2 - down,
    ]
    # affine_grid counts from -1 to 1
    to_x[1], to_x[2] = to_x[1] * height / width, to_x[2] * 2 / width
    to_y[0], to_y[2] = to_y[0] * width / height, to_y[2] * 2 / height
    theta = torch.stack([torch.stack(to_x, 1), torch.stack(to_y, 1)], 1)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    source = images.float()
    moved = F.grid_sample(source, grid, mode="nearest", align_corners=False)
    return moved.to(torch.uint8)


# --- operations on the value of pixels -----------------------------------------------


def _blend(images: Tensor, other: Tensor, amount: Tensor) -> Tensor:
    """Away from `other` where the amount is positive, towards it where negative."""
    factor = (1 + ENHANCEMENT * amount).view(-1, 1, 1, 1)
    blended = torch.addcmul(other, factor, images.float() - other)
    return blended.clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W) in whole steps; of images without colours, their mean."""
    if images.shape[1] != 3:
        return images.float().mean(1, keepdim=True)
    weights = on_device(
        torch.tensor([0.2989, 0.587, 0.114]), images.device
    )  # ITU-R 601
    return (images.float() * weights.view(1, 3, 1, 1)).sum(1, keepdim=True).floor_()


def _brightness(images: Tensor, amount: Tensor) -> Tensor:
    return _blend(images, torch.zeros_like(images, dtype=torch.float32), amount)


def _color(images: Tensor, amount: Tensor) -> Tensor:
    """Saturation; images without three channels have none and stay as they are."""
    if images.shape[1] != 3:
        return images
    return _blend(images, _grey(images), amount)


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean((2, 3), keepdim=True), amount)


def _sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Against a smoothed image, whose outermost pixels are the image's own."""
    if min(images.shape[2:]) < 3:
        return images
    smooth = images.float()
    rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
    block = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(((block + 4 * inner) / 13).round_())  # the middle weighs 5, the rest 1
    return _blend(images, smooth, amount)


def _posterize(images: Tensor, amount: Tensor) -> Tensor:
    """Fewer bits per value: 8 at no strength, 4 at full."""
    dropped = (amount.abs() * POSTERIZED_BITS).round().long()
    mask = (256 - 2**dropped).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def _solarize(images: Tensor, amount: Tensor) -> Tensor:
    """Values from a threshold on inverted; it falls from 255 to 0 with strength."""
    threshold = (255 * (1 - amount.abs())).ceil().to(torch.uint8)
    bright = (images >= threshold.view(-1, 1, 1, 1)).to(torch.uint8)
    return images ^ bright.neg_()  # xor 255 inverts


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant one stays as it is."""
    values = images.float()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    stretched = (values - low) * (255 / (high - low))
    return torch.where(high > low, stretched, values).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's histogram flattened, leaving channels of too few values alone."""
    planes = images.flatten(0, 1).flatten(1).long()  # (B * C, H * W)
    counts = planes.new_zeros(len(planes), 256)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    brightest = counts.gather(1, planes.amax(1, keepdim=True))
    step = (planes.shape[1] - brightest) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    result = torch.where(step > 0, table.gather(1, planes), planes)
    return result.to(torch.uint8).view_as(images)


_COLOUR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "posterize": _posterize,
    "solarize": _solarize,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
}
