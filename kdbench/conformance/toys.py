"""Toys: small synthetic data and pairs of small models, on which checks train.

A plugin object for the host. The pairs differ in family, in the number of stages, in
channels and in the size of maps, because a strategy has to serve any pair, or to say
why it cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import Data, Dataset, Pair, Split, hookimpl
from kdbench.tasks import Task

ITEMS = 128
CLASSES = 4
NOISE = 0.7
WAVE = 1.5
MIDDLE, SPREAD = 128.0, 40.0
TOKENS = 50


@dataclass(frozen=True)
class Toy:
    """A dataset and a pair, by name, and what is particular about the pair."""

    dataset: str
    pair: str
    about: str = ""


IMAGES = Toy("toy-images", "toy-convnets", "one family, other widths")
VECTORS = Toy("toy-vectors", "toy-mlps", "dense layers: no maps")
ONE_MODEL = Toy("toy-images", "toy-one-model", "teacher and student are one model")
HOMES = (IMAGES, VECTORS, ONE_MODEL)
"""Where a strategy is looked at: the first of these that it supports."""

ELSEWHERE = (
    Toy("toy-images", "toy-resnet-convnet", "three stages teach two"),
    Toy("toy-images", "toy-convnet-resnet", "two stages teach three"),
    Toy("toy-images", "toy-images-mlp", "a convnet teaches dense layers"),
)
"""Pairs across families, that it has to serve or to refuse with a sentence."""

STRIPES = {"toy-images": "toy-stripes"}
"""What a strategy learns that also shows its student changed images."""

TWO_CLASSES = {"toy-images": "toy-images-2", "toy-vectors": "toy-vectors-2"}
"""The same with two classes."""


def _load(
    data_dir: Path | None,  # noqa: ARG001 - nothing is read
    download: bool,  # noqa: ARG001
    shape: tuple[int, ...],
    classes: int,
    items: int = ITEMS,
    striped: bool = False,
) -> Data:
    """Each class is a pattern of its own, seen through noise."""
    stream = torch.Generator().manual_seed(0)
    if striped:
        patterns = _stripes(shape[1:])[:classes, None].expand(-1, *shape)
    else:
        patterns = torch.randn(classes, *shape, generator=stream)

    def split() -> Split:
        targets = torch.arange(items) % classes
        noise = torch.randn(items, *shape, generator=stream)
        inputs = patterns[targets] + NOISE * noise
        if len(shape) == 3:  # bytes, which augmentation expects of images
            inputs = (MIDDLE + SPREAD * inputs).clamp(0, 255).to(torch.uint8)
        return Split(inputs=inputs, targets=targets)

    train, test = split(), split()
    mean, std = (MIDDLE, SPREAD) if len(shape) == 3 else (0.0, 1.0)
    return Data(train=train, test=test, mean=(mean,) * shape[0], std=(std,) * shape[0])


def _stripes(size: tuple[int, ...]) -> Tensor:
    """Across, upright, chequered, slanting: RandAugment leaves them what they are."""
    y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    waves = [torch.sin(math.pi / 2 * to + 0.7) for to in (x, y, x + y)]
    return WAVE * torch.stack([*waves[:2], (-1.0) ** (x + y), waves[2]])


def patterned(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    items: int = ITEMS,
    striped: bool = False,
) -> Dataset:
    """Made-up images (C, H, W), or other numbers of this shape."""
    return Dataset(
        name=name,
        summary=f"{items} synthetic items of {classes} classes",
        source="made up: a pattern for each class, and noise",
        task=Task(outputs=classes),
        input_shape=shape,
        load=partial(_load, shape=shape, classes=classes, items=items, striped=striped),
        embedded=True,
    )


def _load_tokens(data_dir: Path | None, download: bool) -> Data:  # noqa: ARG001
    """Each class has words that it likes; the first token is a start, 0 is padding."""
    stream = torch.Generator().manual_seed(0)

    def split() -> Split:
        targets = torch.arange(ITEMS) % 2
        words = torch.randint(2, TOKENS, (ITEMS, 12), generator=stream)
        liked = 2 + targets[:, None] * 24 + words % 24
        mask = torch.rand(ITEMS, 12, generator=stream) < 0.6
        inputs: Tensor = torch.where(mask, liked, words)
        inputs[:, 0] = 1
        return Split(inputs=inputs, targets=targets)

    return Data(train=split(), test=split())


class Toys:
    """The plugin."""

    __name__ = "kdbench.toys"  # an installed plugin may be called toys

    @hookimpl
    def kdbench_datasets(self) -> list[Dataset]:
        tokens = Dataset(
            name="toy-tokens",
            summary=f"{ITEMS} synthetic texts of 2 classes",
            source="made up",
            task=Task(outputs=2),
            input_shape=(12,),
            load=_load_tokens,
            embedded=True,
            vocabulary=TOKENS,
        )
        return [
            patterned("toy-images", (1, 8, 8), CLASSES),
            patterned("toy-images-2", (1, 8, 8), 2),
            patterned("toy-stripes", (1, 8, 8), CLASSES, striped=True),
            patterned("toy-vectors", (12,), CLASSES),
            patterned("toy-vectors-2", (12,), 2),
            tokens,
        ]

    @hookimpl
    def kdbench_pairs(self) -> list[Pair]:
        def pair(name: str, teacher: str, assistant: str, student: str) -> Pair:
            return Pair(
                name=name,
                teachers=(teacher,),
                students=(student,),
                assistants=(assistant,),
            )

        return [
            pair("toy-convnets", "convnet_14", "convnet_14", "convnet_6"),
            pair("toy-one-model", "convnet_6", "convnet_6", "convnet_6"),
            pair("toy-mlps", "mlp_32", "mlp_32", "mlp_5"),
            pair("toy-resnet-convnet", "resnet8", "convnet_14", "convnet_6"),
            pair("toy-convnet-resnet", "convnet_14", "convnet_14", "resnet8"),
            pair("toy-images-mlp", "convnet_14", "mlp_bn_8_8", "mlp_bn_8_8"),
        ]
