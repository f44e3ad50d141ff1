"""Encoded images -> blocks of uint8 pixels, in several threads.

Threads and not processes: PIL decodes and resizes without Python's lock, so large
images use every core, and small ones (CIFAR's) take some ten seconds in all.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdbench.api import UserError
from kdbench.data.images import Encoded, Form, Part, Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK_BYTES = 2**24
MODES = {"L": "grey", "P": "palette", "RGBA": "transparent RGB", "CMYK": "CMYK"}


class Unlike(UserError):
    """An image whose size or mode is not that of its set."""


class Block(NamedTuple):
    """Some images in order, (n, C, H, W), and how many of them were converted."""

    pixels: Pixels
    converted: int = 0


def blocks(part: Part, form: Form) -> Iterator[Block]:
    """All images of a split, in order.

    Raises UserError naming file and row of an image that cannot be decoded, and Unlike
    where one has not the set's form.
    """
    size = max(1, min(1024, BLOCK_BYTES // int(np.prod(form.shape))))
    if part.encoded is not None:
        yield from _decoded(part.encoded(), form, size)
    elif part.pixels is not None:
        if part.pixels.shape[1:] != form.shape:
            raise Unlike(f"{part.where(0)}: images of {part.pixels.shape[1:]}")
        for start in range(0, len(part.pixels), size):
            yield Block(np.ascontiguousarray(part.pixels[start : start + size]))


def _decoded(images: Iterator[Encoded], form: Form, size: int) -> Iterator[Block]:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    waiting: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(images, size)):
            waiting.append(pool.submit(_block, some, form))
            if len(waiting) > 2 * threads:  # else a fast reader fills the memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _block(images: list[Encoded], form: Form) -> Block:
    pixels = np.empty((len(images), *form.shape), np.uint8)
    converted = 0
    for row, image in enumerate(images):
        pixels[row], changed = decode(image, form)
        converted += changed
    return Block(pixels, converted)


def opened(image: Encoded) -> Image:
    """PIL's image, of which only the header has been read."""
    import PIL.Image

    data = image.data
    try:
        return PIL.Image.open(data if isinstance(data, Path) else io.BytesIO(data))
    except Exception as error:  # what a damaged header raises depends on the codec
        raise _unreadable(image, error) from error


def _unreadable(image: Encoded, error: Exception) -> UserError:
    size = "" if isinstance(image.data, Path) else f" ({len(image.data)} bytes)"
    return UserError(
        f"{image.place}: no image that can be read{size}: {error}; restore or remove it"
    )


def decode(image: Encoded, form: Form) -> tuple[Pixels, bool]:
    """(C, H, W) uint8, and whether it had to be converted from another mode."""
    with opened(image) as picture:
        foreign = picture.mode != form.mode
        if foreign and not form.converted:
            kind = MODES.get(picture.mode, "foreign")
            wanted = "RGB" if form.mode == "RGB" else "grey"
            raise Unlike(
                f"{image.place}: a {kind} image (mode {picture.mode}) where {wanted} "
                "was expected; convert or remove it"
            )
        height, width = form.shape[1:]
        if not form.resized and picture.size != (width, height):
            raise Unlike(
                f"{image.place}: {picture.width}x{picture.height} pixels instead of "
                f"{width}x{height}"
            )
        try:
            picture.load()
        except Exception as error:  # what a damaged body raises depends on the codec
            raise _unreadable(image, error) from error
        whole = picture.convert(form.mode) if foreign else picture
        if form.resized:
            whole = centre_square(whole, height)
        pixels = np.asarray(whole)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), foreign


def centre_square(picture: Image, size: int) -> Image:
    """Shorter side resized to `size`, and the central square of it.

    Bilinear, with PIL's antialiasing when it shrinks; the longer side and the square's
    corner round as torchvision's Resize and CenterCrop do.
    """
    import PIL.Image

    width, height = picture.size
    short = min(width, height)
    resized = (size * width // short, size * height // short)
    if resized != picture.size:
        picture = picture.resize(resized, PIL.Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in resized)
    return picture.crop((left, top, left + size, top + size))
