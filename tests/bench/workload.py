"""What both sides of a benchmark train: random images, a pair of models, methods.

Throughput only, so nothing is learned from: the images are noise. The teacher's weights
are random too, with batch-norm statistics of such images, so that its activations and
its softened classes are of an ordinary size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Data, Dataset, Model, Split
from kdbench.plugins import Host
from kdbench.records import Recipe
from kdbench.tasks import Task

BATCH = 64
LR = 1e-3  # small: with the usual one some methods diverge on noise, and time NaNs

Method = tuple[str, dict[str, float]]
"""A strategy's name and the hyper-parameters that differ from its defaults."""

TABLE: tuple[Method, ...] = tuple(
    (name, {})
    for name in "kd fitnet at sp cc vid rkd pkt nst kdsvd crd".split()  # noqa: SIM905
)
"""The whole table: the single-stage strategies that the field's papers compare."""

KD_GRID: tuple[Method, ...] = tuple(
    ("kd", {"temperature": temperature, "kd_weight": weight, "ce_weight": 1 - weight})
    for temperature in (1.0, 2.0, 4.0, 8.0)
    for weight in (0.25, 0.5, 0.75, 0.9)
)
"""Sixteen settings of one strategy, as a search over hyper-parameters trains them."""


@dataclass(frozen=True)
class Images:
    """A kind of data set: (C, H, W) of an image, its classes, how it is augmented."""

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmented: bool

    def drawn(self, items: int) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) uint8 and (N,) classes: the same ones each time."""
        stream = torch.Generator().manual_seed(0)
        size = (items, *self.shape)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=stream)
        return pixels, torch.randint(0, self.classes, (items,), generator=stream)


IMAGES = {
    "cifar": Images(
        shape=(3, 32, 32),
        classes=100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        augmented=True,
    ),
    "mnist": Images(
        shape=(1, 28, 28), classes=10, mean=(0.1307,), std=(0.3081,), augmented=False
    ),
}


@dataclass(frozen=True)
class Workload:
    """One side of a benchmark, in plain data that a process can be given as JSON."""

    side: str
    """Of `side.SIDES`."""
    teacher: str
    student: str
    methods: Sequence[Method] = TABLE
    images: str = "cifar"
    precision: str = "float32"
    threads: int = 2
    device: str = "cpu"
    train_items: int = 50_000
    test_items: int = 64

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def labels(self) -> list[str]:
        """The methods by name, numbered where one name stands for several settings."""
        names = [name for name, _ in self.methods]
        if len(set(names)) == len(names):
            return names
        return [f"{name} {k + 1}" for k, name in enumerate(names)]

    def recipe(self) -> Recipe:
        """Crop and flip for CIFAR, students stacked for MNIST's dense ones.

        It has more epochs than any benchmark comes to train.
        """
        augmented = IMAGES[self.images].augmented
        return Recipe(
            epochs=1000,
            batch_size=BATCH,
            lr=LR,
            schedule="constant",
            crop_padding=4 if augmented else 0,
            flip=augmented,
            precision=self.precision,
            stack=self.images == "mnist",
        )

    def data(self) -> Data:
        kind = IMAGES[self.images]
        pixels, targets = kind.drawn(self.train_items + self.test_items)
        train, test = (
            Split(inputs=pixels[part], targets=targets[part])
            for part in (slice(self.train_items), slice(self.train_items, None))
        )
        return Data(
            train=train,
            test=test,
            mean=tuple(255 * value for value in kind.mean),
            std=tuple(255 * value for value in kind.std),
        )

    def dataset(self) -> Dataset:
        kind = IMAGES[self.images]
        return Dataset(
            name=f"random {self.images}",
            summary="noise",
            source="drawn",
            task=Task(outputs=kind.classes),
            input_shape=kind.shape,
            load=lambda _folder, _download: self.data(),
        )

    def built(self, host: Host, name: str) -> tuple[Model, nn.Module]:
        """A model's description, and itself with random weights."""
        spec = host.model(name)
        torch.manual_seed(0)
        return spec, self.dataset().build(spec)

    def trained_teacher(self, host: Host) -> tuple[Model, nn.Module]:
        """The teacher, frozen, with batch-norm statistics of two batches."""
        spec, module = self.built(host, self.teacher)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # the plain mean of all batches
        with torch.no_grad():
            for pixels in IMAGES[self.images].drawn(2 * BATCH)[0].split(BATCH):
                module(self.normalised(pixels))
        return spec, module.eval().requires_grad_(False)

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) float of mean 0 and deviation 1 from uint8."""
        kind = IMAGES[self.images]
        mean, std = (torch.tensor(x).view(1, -1, 1, 1) for x in (kind.mean, kind.std))
        return (pixels / 255 - mean) / std
