"""The data of a group: in memory, on the device, the same batches for every learner.

Order and augmentation of a step are functions of (seed, epoch, step) alone, so a
resumed training sees what an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.api import Data
from kdbench.engine.streams import generator
from kdbench.records import Recipe
from kdbench.tasks import Task

EVAL_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One batch on the device: (B, ...) normalised inputs, targets and (B,) index."""

    inputs: Tensor
    targets: Tensor
    index: Tensor
    epoch: int
    step: int
    when: float
    """Epochs done, with a fraction."""

    @property
    def tensors(self) -> list[Tensor]:
        """What all learners share and none may write to."""
        return [self.inputs, self.targets, self.index]


class Feed:
    """Batches of the training set, and the whole test set, for one seed.

    Numbers to predict are standardised by the training set; `restored` undoes it.
    """

    def __init__(
        self, data: Data, task: Task, recipe: Recipe, seed: int, device: torch.device
    ):
        self.task = task
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.items = len(data.train.targets)
        self.test_items = len(data.test.targets)
        full, rest = divmod(self.items, recipe.batch_size)
        self.steps = full + (1 if rest and not recipe.drop_last else 0)
        if self.steps == 0:
            raise ValueError(
                f"{self.items} training items do not fill one batch of "
                f"{recipe.batch_size}"
            )
        self.test_targets = data.test.targets
        self._train = data.train.inputs.to(device)
        self._test = data.test.inputs.to(device)
        self._target_scale = _scale(data.train.targets, task)
        middle, spread = (value.to(device) for value in self._target_scale)
        targets = data.train.targets.to(device)
        self._targets = (targets - middle) / spread if task.columns else targets
        shape = (1, -1) + (1,) * (self._train.dim() - 2)
        self._is_numbers = bool(data.mean)
        self._mean = torch.tensor(data.mean, device=device).view(shape)
        self._std = torch.tensor(data.std, device=device).view(shape)
        self._crops = self._crop_view(recipe.crop_padding)
        self._order: tuple[int, Tensor] | None = None

    def _crop_view(self, padding: int) -> Tensor | None:
        """Every crop as a strided view: (N, C, dy, dx, H, W), zero-padded once."""
        if not padding and not self.recipe.flip:
            return None
        if self._train.dim() != 4:
            raise ValueError(
                "crop_padding and flip need images (N, C, H, W), not inputs of "
                f"{tuple(self._train.shape)}"
            )
        height, width = self._train.shape[2:]
        padded = F.pad(self._train, (padding,) * 4)
        return padded.unfold(2, height, 1).unfold(3, width, 1)

    def at(self, epoch: int, step: int) -> Step:
        """The batch of this step."""
        if self._order is None or self._order[0] != epoch:
            stream = generator(self.seed, "order", epoch)
            order = torch.randperm(self.items, generator=stream)
            self._order = (epoch, order.to(self.device))
        size = self.recipe.batch_size
        index = self._order[1][step * size : (step + 1) * size].clone()
        if self._crops is None:
            inputs = self._train[index]
        else:
            inputs = self._augmented(index, epoch, step)
        return Step(
            inputs=self._normalised(inputs),
            targets=self._targets[index],
            index=index,
            epoch=epoch,
            step=step,
            when=epoch + step / self.steps,
        )

    def in_order(self) -> Iterator[Step]:
        """The training set in order, every item exactly once, as it is."""
        everything = torch.arange(self.items, device=self.device)
        for number, index in enumerate(torch.split(everything, EVAL_BATCH)):
            yield Step(
                inputs=self._normalised(self._train[index]),
                targets=self._targets[index],
                index=index,
                epoch=0,
                step=number,
                when=0.0,
            )

    def _augmented(self, index: Tensor, epoch: int, step: int) -> Tensor:
        """Each item's own crop and flip. (B, C, H, W)."""
        assert self._crops is not None  # noqa: S101 - the caller checked
        stream = generator(self.seed, "augment", epoch, step)
        offsets = 2 * self.recipe.crop_padding + 1
        crop = torch.randint(offsets, (2, len(index)), generator=stream)
        mirror = torch.rand(len(index), generator=stream) < 0.5
        down, right = crop.to(self.device)
        inputs = self._crops[index, :, down, right]
        if self.recipe.flip:
            flipped = mirror.to(self.device)[:, None, None, None]
            inputs = torch.where(flipped, inputs.flip(3), inputs)
        return inputs

    def _normalised(self, inputs: Tensor) -> Tensor:
        if not self._is_numbers:  # tokens
            return inputs
        return (inputs.float() - self._mean) / self._std

    def restored(self, outputs: Tensor) -> Tensor:
        """(N, outputs) of a model on the CPU, numbers in their own unit again."""
        if self.task.kind == "classification":
            return outputs
        middle, spread = (row.expand(len(outputs), -1) for row in self._target_scale)
        parts = []
        for mean, unit in zip(
            self.task.split(outputs, middle),
            self.task.split(outputs, spread),
            strict=True,
        ):
            if mean.head.task.kind == "classification":
                parts.append(mean.outputs)
            else:
                parts.append(mean.outputs * unit.targets + mean.targets)
        return torch.cat(parts, 1)

    def labelled(self, fraction: float) -> Tensor | None:
        """Mask over the training set of the labels that may be used; None for all.

        Class-balanced where the targets are classes, and a function of (seed,
        fraction) only, so that all semi-supervised strategies see the same labels.
        """
        if fraction >= 1:
            return None
        stream = generator(self.seed, "labelled")
        order = torch.randperm(self.items, generator=stream).to(self.device)
        mask = torch.zeros(self.items, dtype=torch.bool, device=self.device)
        if self.task.columns:
            mask[order[: max(1, round(fraction * self.items))]] = True
            return mask
        for value in torch.unique(self._targets):
            members = order[self._targets[order] == value]
            mask[members[: max(1, round(fraction * len(members)))]] = True
        return mask

    def test_batches(self) -> Iterator[Tensor]:
        """The test set in order, every item exactly once."""
        for part in torch.split(self._test, EVAL_BATCH):
            yield self._normalised(part)

    def sample(self, items: int) -> Tensor:
        """The first test items, normalised; repeated where there are fewer."""
        repeats = -(-items // self.test_items)
        return self._normalised(self._test[:items].repeat_interleave(repeats, 0))[
            :items
        ]


def _scale(targets: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of numbers; 0 and 1 of classes."""
    if not task.columns:
        return torch.zeros(()), torch.ones(())
    middle, spread = targets.double().mean(0), targets.double().std(0, correction=0)
    at = 0
    for head in task.heads:
        width = max(1, head.task.columns)
        if not head.task.columns:
            middle[at], spread[at] = 0.0, 1.0
        at += width
    spread[spread == 0] = 1.0  # a constant target
    return middle.float(), spread.float()
