"""The data of a group: in memory, on the device, the same batches for every learner.

Order and augmentation of a step are functions of (seed, epoch, step) alone, so a
resumed training sees what an undisturbed one does. The set stays what it is (uint8, or
a file mapped into memory); it is copied once, padded, where crops are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from kdbench.api import Data
from kdbench.engine.augment import (
    Crops,
    Mixed,
    centre,
    checked_size,
    cutmix,
    cutout,
    draw_boxes,
    draw_centres,
    draw_crops,
    draw_mirrors,
    flip,
    mixup,
    resized,
)
from kdbench.engine.classes import Classes
from kdbench.engine.clock import Clock, Spent
from kdbench.engine.device import on_device
from kdbench.engine.holding_out import divided, labelled
from kdbench.engine.order import Order, planned
from kdbench.engine.rand_augment import rand_augment, strong
from kdbench.engine.streams import generator
from kdbench.records import Recipe
from kdbench.tasks import Task

EVAL_BATCH = 1000

RESIDENT_BYTES = 16 * 2**30
"""A set of more bytes stays in the file it is mapped from, and only batches move."""


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
    views: dict[str, Mixed] = field(default_factory=dict)
    seconds: dict[str, Spent] = field(default_factory=dict)
    """What making the batch ("") and each view took."""

    def seen(self, view: str) -> Tensor:
        """(B, ...) inputs of a view, or ("") of the batch as it is."""
        return self.views[view].inputs if view else self.inputs

    @property
    def tensors(self) -> list[Tensor]:
        """What all learners share and none may write to."""
        views = [
            part
            for view in self.views.values()
            for part in (view.inputs, view.partner, view.share)
        ]
        return [self.inputs, self.targets, self.index, *views]


class Feed:
    """Batches of the training set, and the whole test set, for one seed.

    Numbers to predict are standardised by the training set; `restored` undoes it. What
    the recipe holds out for validation is in no batch; `index` counts what is left.
    """

    def __init__(
        self, data: Data, task: Task, recipe: Recipe, seed: int, device: torch.device
    ):
        self.task = task
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self._clock = Clock(device)
        self._rows, self._validation = divided(
            data.train.targets, recipe.validation, classes=not task.columns
        )
        targets = data.train.targets
        if self._rows is not None:
            targets = targets[self._rows]
        self.validation_targets = data.train.targets[self._validation]
        self.items = len(targets)
        self.test_items = len(data.test.targets)
        full, rest = divmod(self.items, recipe.batch_size)
        self.steps = full + (1 if rest and not recipe.drop_last else 0)
        if self.steps == 0:
            raise ValueError(
                f"{self.items} training items do not fill one batch of "
                f"{recipe.batch_size}"
            )
        self.train_targets = targets
        self.test_targets = data.test.targets
        train, test = data.train.inputs, data.test.inputs
        self._home = device if train.nbytes <= RESIDENT_BYTES else train.device
        train, test = train.to(self._home), test.to(self._home)
        self._size = checked_size(train, recipe)
        self._test = centre(test, self._size) if recipe.resized_crop else test
        # padded images contain the images: there is no need to hold both
        padding = recipe.crop_padding
        self._source = Crops(train, padding) if padding else train
        self._target_scale = _scale(targets, task)
        middle, spread = (value.to(device) for value in self._target_scale)
        targets = targets.to(device)
        self._targets = (targets - middle) / spread if task.columns else targets
        shape = (1, -1) + (1,) * (train.dim() - 2)
        self._is_numbers = bool(data.mean)
        self._mean = torch.tensor(data.mean, device=device).view(shape)
        self._scale = 1 / torch.tensor(data.std, device=device).view(shape)
        self._whole: tuple[Tensor, Tensor] | None = None
        self._plan: Order | None = None
        self._classes: Classes | None = None

    @property
    def repeats(self) -> bool:
        """Whether an item's inputs are the same in every epoch."""
        one = self.recipe
        drawn = (one.crop_padding, one.flip, one.cutout, one.rand_augment)
        return not any((*drawn, one.resized_crop))

    def at(self, epoch: int, step: int) -> Step:
        """The batch of this step."""
        started = self._clock.now()
        plan, part = self._planned(epoch), self._part(step)
        index = plan.order[part].clone()
        if isinstance(self._source, Crops):
            inputs = on_device(self._source.at(plan.starts[part]), self.device)
        else:
            rows = self._stored(index)
            inputs = on_device(self._source.index_select(0, rows), self.device)
        index = on_device(index, self.device)
        if self.recipe.resized_crop:
            inputs = self._resized(inputs, epoch, step)
        if self.recipe.flip:
            inputs = flip(inputs, plan.mirrors[part])
        inputs = self._finished(inputs, epoch, step)
        return Step(
            inputs=inputs,
            targets=self._targets[index],
            index=index,
            epoch=epoch,
            step=step,
            when=epoch + step / self.steps,
            seconds={"": self._clock.since(started)},
        )

    def add_views(self, step: Step, names: Sequence[str]) -> None:
        """Give the step these views of its images, where it does not have them yet."""
        for name in names:
            if name in step.views:
                continue
            started = self._clock.now()
            stream = generator(self.seed, "view", name, step.epoch, step.step)
            step.views[name] = self._view(name, step, stream)
            step.seconds[name] = self._clock.since(started)

    def _view(self, name: str, step: Step, stream: Generator) -> Mixed:
        if name == "mixup":
            return mixup(step.inputs, stream)
        if name == "cutmix":
            return cutmix(step.inputs, stream)
        items = self._planned(step.epoch).items[self._part(step.step)]
        if name == "strong":
            images = strong(self._augmented(items, stream), stream)
        else:
            images = self._augmented(self._partners(items, stream), stream)
        return Mixed(
            inputs=self.normalised(images),
            partner=torch.arange(len(images), device=images.device),
            share=torch.ones(len(images), device=images.device),
        )

    def in_order(self) -> Iterator[Step]:
        """The training set in order, every item exactly once, as it is."""
        everything = torch.arange(self.items, device=self.device)
        for number, index in enumerate(torch.split(everything, EVAL_BATCH)):
            yield Step(
                inputs=self.normalised(self.images(index)),
                targets=self._targets[index],
                index=index,
                epoch=0,
                step=number,
                when=0.0,
            )

    def _part(self, step: int) -> slice:
        """Of an epoch's items those of this step."""
        size = self.recipe.batch_size
        return slice(step * size, (step + 1) * size)

    def _planned(self, epoch: int) -> Order:
        if self._plan is None or self._plan.epoch != epoch:
            order = planned(
                self.seed, epoch, self.items, self.recipe, self._source, self._rows
            )
            self._plan = order.on(self._home, self.device)
        return self._plan

    def _stored(self, index: Tensor) -> Tensor:
        """Where training items (B,) lie in the set, on the device of `index`."""
        return index if self._rows is None else self._rows.to(index.device)[index]

    def _resized(self, images: Tensor, epoch: int, step: int) -> Tensor:
        stream = generator(self.seed, "resized_crop", epoch, step)
        boxes = draw_boxes(len(images), images.shape, stream)
        return resized(images, boxes, *self._size)

    def _finished(self, images: Tensor, epoch: int, step: int) -> Tensor:
        """RandAugment, normalised, then cutout: its fill of zero is the mean."""
        if self.recipe.rand_augment:
            stream = generator(self.seed, "rand_augment", epoch, step)
            images = rand_augment(images, stream, *self.recipe.rand_augment)
        inputs = self.normalised(images)
        if self.recipe.cutout:
            stream = generator(self.seed, "cutout", epoch, step)
            centres = draw_centres(len(inputs), inputs.shape, stream)
            inputs = cutout(
                inputs, on_device(centres, inputs.device), self.recipe.cutout
            )
        return inputs

    def images(self, index: Tensor) -> Tensor:
        """The training inputs (B, ...) at (B,) positions, as they are stored.

        Where the recipe crops and resizes, they are cut to its size from the centre.
        """
        return self._at_rows(self._stored(index))

    def _at_rows(self, index: Tensor) -> Tensor:
        index = index.to(self._home)
        if isinstance(self._source, Crops):
            return self._source.at(self._source.centres(index)).to(self.device)
        inputs = self._source.index_select(0, index).to(self.device)
        return centre(inputs, self._size) if self.recipe.resized_crop else inputs

    def _partners(self, index: Tensor, stream: Generator) -> Tensor:
        if self._classes is None:
            self._classes = Classes(self.train_targets)
        return self._classes.others(index, stream)

    def _augmented(self, index: Tensor, stream: Generator) -> Tensor:
        """The inputs at (B,) positions, by the recipe's crop and mirror, drawn anew.

        Positions are on the CPU, as the draws are.
        """
        if isinstance(self._source, Crops):
            offsets = draw_crops(len(index), self._source.padding, stream)
            starts = self._source.starts(self._stored(index), *offsets)
            images = self._source.at(on_device(starts, self._home))
        else:
            rows = self._stored(index)
            images = self._source.index_select(0, on_device(rows, self._home))
        images = on_device(images, self.device)
        if self.recipe.resized_crop:
            boxes = draw_boxes(len(images), images.shape, stream)
            images = resized(images, boxes, *self._size)
        if self.recipe.flip:
            images = flip(
                images, on_device(draw_mirrors(len(index), stream), self.device)
            )
        return images

    def normalised(self, inputs: Tensor) -> Tensor:
        """Stored inputs (B, ...) as float, of mean 0 and deviation 1; tokens as is."""
        if not self._is_numbers:
            return inputs
        if inputs.dim() != 4:
            return (inputs.float() - self._mean) * self._scale
        # in place, and by a product: half the time of the plain form on a CPU
        copy, layout = inputs.to(torch.float32, copy=True), torch.channels_last
        if not copy.is_contiguous(memory_format=layout):
            copy.sub_(self._mean).mul_(self._scale)
            return copy.contiguous(memory_format=layout)
        if self._whole is None or self._whole[0].shape[1:] != inputs.shape[1:]:
            self._whole = _laid_out(self._mean, inputs), _laid_out(self._scale, inputs)
        return copy.sub_(self._whole[0]).mul_(self._whole[1])

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
        """Mask over the training set of the labels that may be used; None for all."""
        classes = not self.task.columns
        mask = labelled(self._targets, fraction, self.seed, classes=classes)
        return None if mask is None else mask.to(self.device)

    def test_batches(
        self, change: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """The test set in order, every item exactly once.

        `change` is given each batch as it is stored, before it is normalised.
        """
        for part in torch.split(self._test, EVAL_BATCH):
            stored = part.to(self.device)
            yield self.normalised(change(stored) if change else stored)

    def validation_batches(self) -> Iterator[Tensor]:
        """What is held out, in order and as it is."""
        for rows in torch.split(self._validation, EVAL_BATCH):
            yield self.normalised(self._at_rows(rows))

    def sample(self, items: int) -> Tensor:
        """The first test items, normalised; repeated where there are fewer."""
        repeats = -(-items // self.test_items)
        some = self._test[:items].repeat_interleave(repeats, 0)[:items]
        return self.normalised(some.to(self.device))


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


def _laid_out(constants: Tensor, images: Tensor) -> Tensor:
    """A constant per channel as one image in channels_last.

    A CPU takes an eighth of the time for such a row of numbers as for three at a time.
    """
    whole = constants.expand(1, *images.shape[1:])
    return whole.contiguous(memory_format=torch.channels_last)
