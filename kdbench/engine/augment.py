"""Augmentation of whole batches, on the device, with a draw of its own per sample.

Drawing and applying are apart: the first takes a generator on the CPU, the second is a
pure function of images and draws. Operations on uint8 images return uint8.

Sources: random crop with zero padding and mirror, He et al. 2016 (arXiv:1512.03385);
cutout, DeVries and Taylor 2017 (arXiv:1708.04552); random resized crop, Szegedy et al.
2015 (arXiv:1409.4842); mixup, Zhang et al. 2018 (arXiv:1710.09412); cutmix, Yun et al.
2019 (arXiv:1905.04899). RandAugment is in `rand_augment`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kdbench.engine.device import on_device
from kdbench.records import Recipe

RESIZED_SCALE = (0.08, 1.0)  # share of the image's area
RESIZED_RATIO = (3 / 4, 4 / 3)  # width by height
RESIZED_TRIES = 10


class Crops:
    """Every crop of a set of images (N, C, H, W), zero-padded once.

    The padded set lies in memory as (N, H, W, C), and a crop is one stretch of it: from
    its first pixel to its last, with what lies between, so that a batch is one copy per
    image. Crops are channels_last.
    """

    def __init__(self, images: Tensor, padding: int):
        self.padding = padding
        channels, height, width = images.shape[1:]
        self._shape = (height, width, channels)
        padded = F.pad(images, (padding,) * 4).permute(0, 2, 3, 1).contiguous()
        self._image, *self._strides = padded.stride()
        self._length = (height - 1) * self._strides[0] + width * channels
        stretches = padded.numel() - self._length + 1
        self._stretches = padded.as_strided((stretches, self._length), (1, 1))

    def starts(self, items: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Where the crops begin, from items (B,) and offsets (B,) of 0..2 padding."""
        row, pixel, _ = self._strides
        return items * self._image + down * row + right * pixel

    def centres(self, items: Tensor) -> Tensor:
        """Where the images themselves begin."""
        middle = torch.full_like(items, self.padding)
        return self.starts(items, middle, middle)

    def at(self, starts: Tensor) -> Tensor:
        """The crops (B, C, H, W) that begin there."""
        rows = self._stretches.index_select(0, starts)  # (B, length)
        size = (len(starts), *self._shape)
        crops = rows.as_strided(size, (self._length, *self._strides))  # (B, H, W, C)
        return crops.contiguous().permute(0, 3, 1, 2)


def flip(images: Tensor, mirror: Tensor) -> Tensor:
    """Those of (B, C, H, W) mirrored left to right where `mirror` (B,) is true."""
    chosen = mirror.view(-1, 1, 1, 1)
    if images.dtype != torch.uint8:
        return torch.where(chosen, images.flip(3), images)
    # `where` takes bytes one by one, these take 64 at once: a fifth of its time
    bits = chosen.to(torch.uint8).neg_()  # 0 or 255
    mirrored = _mirrored(images)
    return mirrored.bitwise_xor_(images).bitwise_and_(bits).bitwise_xor_(images)


def _mirrored(images: Tensor) -> Tensor:
    """`images.flip(3)`, of colours that lie pixel by pixel in less than half its time.

    The bytes of a row are reversed all together; that turns round the channels of each
    pixel too, so the outer two are exchanged by exclusive or.
    """
    items, channels, height = images.shape[:3]
    pixels = images.permute(0, 2, 3, 1)
    if channels != 3 or not pixels.is_contiguous():
        return images.flip(3)
    rows = pixels.view(items, height, -1).flip(2).view(items, -1)
    first, last = rows[:, :-2], rows[:, 2:]
    is_first = torch.zeros_like(first[0])
    is_first[::3] = 255
    differ = (first ^ last).bitwise_and_(is_first)
    first.bitwise_xor_(differ)
    last.bitwise_xor_(differ)
    return rows.view(pixels.shape).permute(0, 3, 1, 2)


def draw_crops(items: int, padding: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Offsets (B,) down and right of a crop, each uniform over 0..2 padding."""
    down, right = torch.randint(2 * padding + 1, (2, items), generator=generator)
    return down, right


def draw_mirrors(items: int, generator: Generator) -> Tensor:
    """Which half to mirror: (B,) bool, each true with probability 1/2."""
    return torch.rand(items, generator=generator) < 0.5


# --- boxes ---------------------------------------------------------------------------


def draw_centres(items: int, size: torch.Size, generator: Generator) -> Tensor:
    """Pixels (B, 2), row and column, uniform over images of (..., H, W)."""
    rows = torch.randint(size[-2], (items,), generator=generator)
    columns = torch.randint(size[-1], (items,), generator=generator)
    return torch.stack([rows, columns], 1)


def inside(centres: Tensor, sides: Tensor, size: torch.Size) -> Tensor:
    """Masks (B, 1, H, W), 1 in each sample's box, clipped at the image's edge.

    `centres` and `sides` are (B, 2), in pixels, rows before columns; a box spans
    centre - side // 2 up to, but without, that plus its side.
    """
    first = centres - sides // 2
    masks = []
    for axis, length in enumerate(size[-2:]):
        place = torch.arange(length, device=centres.device)
        begin, side = first[:, axis, None], sides[:, axis, None]
        within = (place >= begin) & (place < begin + side)  # (B, length)
        masks.append(within.to(torch.uint8))
    # a product of bytes is vectorised, of truth values it is not
    return masks[0][:, None, :, None] * masks[1][:, None, None, :]


def cutout(inputs: Tensor, centres: Tensor, side: int, fill: float = 0.0) -> Tensor:
    """(B, C, H, W) with a square of `side` pixels around each centre filled.

    Its centre is uniform over the pixels, so it may lie partly outside (section 3.2 of
    the paper). On normalised inputs the fill of zero is the training set's mean.
    """
    box = inside(centres, torch.full_like(centres, side), inputs.shape)
    kept = inputs * (1 - box).to(inputs.dtype)  # four times as fast as masked_fill
    return kept + (fill * box).to(inputs.dtype) if fill else kept


# --- random resized crop -------------------------------------------------------------


def draw_boxes(
    items: int,
    size: torch.Size,
    generator: Generator,
    scale: tuple[float, float] = RESIZED_SCALE,
    ratio: tuple[float, float] = RESIZED_RATIO,
) -> Tensor:
    """Boxes (B, 4) of top, left, height and width in images of (..., H, W).

    Area uniform in `scale`, aspect log-uniform in `ratio`, the first of ten tries that
    fits; if none does, the largest centred box whose aspect is in `ratio`.
    """
    height, width = size[-2:]
    low, high = (math.log(value) for value in ratio)
    chance = torch.rand(
        4, items, RESIZED_TRIES, generator=generator, dtype=torch.double
    )
    area = height * width * (scale[0] + (scale[1] - scale[0]) * chance[0])
    aspect = torch.exp(low + (high - low) * chance[1])
    wide, tall = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    top = (chance[2] * (height - tall + 1)).floor()
    left = (chance[3] * (width - wide + 1)).floor()
    tries = torch.stack([top, left, tall, wide], 2).long()  # (B, tries, 4)
    first = fits.int().argmax(1)
    boxes = tries[torch.arange(items), first]
    whole_width = min(width, round(height * ratio[1]))
    whole_height = min(height, round(width / ratio[0]))
    boxes[~fits.any(1)] = torch.tensor(
        [
            (height - whole_height) // 2,
            (width - whole_width) // 2,
            whole_height,
            whole_width,
        ]
    )
    return boxes


def resized(images: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Each image's box as uint8 (B, C, height, width), bilinear and antialiased.

    One image after another: two batched products with the weights of all boxes took up
    to fourteen times as long. `boxes` are best on the CPU.
    """
    # only on the CPU does torch resize bytes
    images = images if images.device.type == "cpu" else images.float()
    size, parts = (height, width), []
    for item, (top, left, tall, wide) in enumerate(boxes.tolist()):
        part = images[item : item + 1, :, top : top + tall, left : left + wide]
        parts.append(F.interpolate(part, size, mode="bilinear", antialias=True))
    whole = torch.cat(parts)
    if whole.dtype == torch.uint8:
        return whole
    return whole.round_().clamp_(0, 255).to(torch.uint8)


def centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of (N, C, H, W), of this height and width."""
    (height, width), (tall, wide) = images.shape[2:], size
    top, left = (height - tall) // 2, (width - wide) // 2
    return images[:, :, top : top + tall, left : left + wide]


# --- mixtures ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mixed:
    """Inputs (B, C, H, W): `share` (B,) of their own, the rest of `partner` (B,).

    A loss is to be mixed likewise: share * loss(own) + (1 - share) * loss(partner).
    """

    inputs: Tensor
    partner: Tensor
    share: Tensor


def draw_shares(items: int, alpha: float, generator: Generator) -> Tensor:
    """(B,) draws from Beta(alpha, alpha)."""
    # torch's Beta takes no generator, and underflows at a small alpha
    seed = int(torch.randint(2**62, (), generator=generator))
    draws = np.random.default_rng(seed).beta(alpha, alpha, items)
    return torch.from_numpy(draws.astype(np.float32))


def mixup(inputs: Tensor, generator: Generator, alpha: float = 1.0) -> Mixed:
    """Each sample (B, ...) blended with another: share ~ Beta(alpha, alpha)."""
    order = torch.randperm(len(inputs), generator=generator)
    partner = on_device(order, inputs.device)
    share = on_device(draw_shares(len(inputs), alpha, generator), inputs.device).to(
        inputs
    )
    shape = (-1,) + (1,) * (inputs.dim() - 1)
    blend = torch.lerp(inputs[partner], inputs, share.view(shape))
    return Mixed(inputs=blend, partner=partner, share=share)


def cutmix(inputs: Tensor, generator: Generator, alpha: float = 1.0) -> Mixed:
    """Each sample with a box of another pasted in, at the same place.

    The box has the image's aspect and an area of 1 - lambda, lambda ~ Beta(alpha,
    alpha), around a pixel uniform over the image; `share` counts the pixels that are
    left after clipping it at the edge.
    """
    height, width = inputs.shape[2:]
    order = torch.randperm(len(inputs), generator=generator)
    partner = on_device(order, inputs.device)
    kept = draw_shares(len(inputs), alpha, generator)
    part = (1 - kept).sqrt()
    sides = torch.stack([(height * part).long(), (width * part).long()], 1)
    centres = draw_centres(len(inputs), inputs.shape, generator)
    box = on_device(inside(centres, sides, inputs.shape), inputs.device).bool()
    share = 1 - box.sum((1, 2, 3)).to(inputs) / (height * width)
    pasted = torch.where(box, inputs[partner], inputs)
    return Mixed(inputs=pasted, partner=partner, share=share)


# --- what a recipe may ask of the inputs ---------------------------------------------


def checked_size(inputs: Tensor, recipe: Recipe) -> tuple[int, int]:
    """Height and width of a batch; ValueError where the recipe does not suit inputs."""
    shape = tuple(inputs.shape)
    names = ("crop_padding", "flip", "cutout", "rand_augment", "resized_crop")
    wanted = [name for name in names if getattr(recipe, name)]
    if not wanted:
        return (0, 0)
    if len(shape) != 4:
        raise ValueError(
            f"{' and '.join(wanted)} need images (N, C, H, W), not inputs of {shape}"
        )
    for name in ("rand_augment", "resized_crop"):
        if name in wanted and inputs.dtype != torch.uint8:
            raise ValueError(f"{name} needs images of uint8, not {inputs.dtype}")
    for name in ("crop_padding", "cutout"):
        if getattr(recipe, name) >= min(shape[2:]):
            raise ValueError(
                f"{name} {getattr(recipe, name)} leaves nothing of images of "
                f"{shape[2]} x {shape[3]}"
            )
    if not recipe.resized_crop:
        return shape[2], shape[3]
    if recipe.crop_padding:
        raise ValueError("resized_crop takes the place of crop_padding: set one")
    side = recipe.image_size
    if side > min(shape[2:]):
        raise ValueError(
            f"image_size {side} is more than the images have: {shape[2]} x {shape[3]}"
        )
    return (side, side) if side else (shape[2], shape[3])
