"""The field's way: one method at a time, PIL images, its own teacher, plain losses.

What the popular code bases do on a machine of a few cores: a `DataLoader` without
worker processes, contiguous tensors, float32, `torch.optim.SGD` as it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import numpy as np
import textbook
import torch
from textbook import Answers, Asked
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from workload import BATCH, IMAGES, LR, Images, Workload

from kdbench.models.mlp import MLP
from kdbench.models.staged import Staged
from kdbench.plugins import Host
from kdbench.vision import torchvision

NEGATIVES = 16_384


class PilImages(Dataset):
    """What torchvision's CIFAR and MNIST do for each item: (image, target)."""

    def __init__(self, pixels: Tensor, targets: Tensor, kind: Images):
        transforms = torchvision("transforms")
        self.pixels = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = targets.tolist()
        changes = [transforms.ToTensor(), transforms.Normalize(kind.mean, kind.std)]
        if kind.augmented:
            changes = [
                transforms.RandomCrop(kind.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                *changes,
            ]
        self.transform = transforms.Compose(changes)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, item):
        from PIL import Image

        image = Image.fromarray(self.pixels[item].squeeze())
        return self.transform(image), self.targets[item]


class WithNegatives(PilImages):
    """For crd: an item's own position, and K of items of other classes."""

    def __init__(self, pixels: Tensor, targets: Tensor, kind: Images):
        super().__init__(pixels, targets, kind)
        classes = targets.numpy()
        self.others = [np.flatnonzero(classes != k) for k in range(kind.classes)]

    def __getitem__(self, item):
        image, target = super().__getitem__(item)
        others = self.others[target]
        again = len(others) < NEGATIVES
        negatives = np.random.choice(others, NEGATIVES, replace=again)  # noqa: NPY002
        return image, target, np.hstack(([item], negatives))


def answers(model: nn.Module, images: Tensor) -> Answers:
    """A model's stages, pooled features and logits, as `is_feat=True` returns them."""
    if isinstance(model, MLP):
        return Answers([], None, model(images))
    assert isinstance(model, Staged)
    maps, stages = model.stem(images), []
    for stage in model.stages:
        maps = stage(maps)
        stages.append(maps)
    pooled = model.pool(model.head(maps)).flatten(1)
    return Answers(stages, pooled, model.classifier(pooled))


class Trainer:
    """One method: a student, its loader, and the loop of a textbook."""

    def __init__(
        self,
        images: PilImages,
        teacher: nn.Module,
        student: nn.Module,
        name: str,
        params: dict[str, float],
    ):
        self._loader = DataLoader(images, BATCH, shuffle=True, drop_last=True)
        self._batches: Iterator[list[Tensor]] = iter(())
        self.teacher = teacher
        self.student = student
        example = images[0][0].expand(2, -1, -1, -1)
        with torch.no_grad():
            sides = answers(student.eval(), example), answers(teacher, example)
        student.train()
        self.loss = textbook.LOSSES[name](*sides, len(images), **params)
        self.optimiser = torch.optim.SGD(
            [*student.parameters(), *self.loss.parameters()],
            lr=LR,
            momentum=0.9,
            weight_decay=5e-4,
        )

    def step(self) -> None:
        images, targets, *memories = self._next()
        with torch.no_grad():
            taught = answers(self.teacher, images)
        asked = Asked(targets, *memories)
        loss = self.loss(answers(self.student, images), taught, asked)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _next(self) -> list[Tensor]:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        return batch


def as_published(model: nn.Module) -> nn.Module:
    """ReLU in place, as in the field's models: less memory to write."""
    for part in model.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = True
    return model


class OneByOne:
    """All methods of a workload, one after the other.

    They share the images and the teacher's weights in memory, and no computation.
    """

    def __init__(self, work: Workload):
        assert (work.precision, work.device) == ("float32", "cpu")
        torch.set_num_threads(work.threads)
        host = Host()
        kind = IMAGES[work.images]
        pixels = kind.drawn(work.train_items)
        plain, contrasted = PilImages(*pixels, kind), WithNegatives(*pixels, kind)
        teacher = as_published(work.trained_teacher(host)[1])
        self._trainers = {
            label: Trainer(
                contrasted if name == "crd" else plain,
                teacher,
                as_published(work.built(host, work.student)[1]),
                name,
                params,
            )
            for label, (name, params) in zip(work.labels(), work.methods, strict=True)
        }

    def visit(self, steps: int) -> dict[str, float]:
        """Seconds per step of each method, and of all of them ("total")."""
        seconds = {}
        for label, trainer in self._trainers.items():
            started = perf_counter()
            for _ in range(steps):
                trainer.step()
            seconds[label] = (perf_counter() - started) / steps
        return {**seconds, "total": sum(seconds.values())}
