"""Batches as they might have been: other numbers, fewer items, another precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Batch, ExtraView, Outputs, Strategy
from kdbench.conformance.checks import DoesNotApply
from kdbench.engine.streams import global_stream
from kdbench.settings import put_back, settings

INNER = "appears to not have been used in the graph"
"""What torch says where a loss asks for the gradient of one answer by another."""

Change = Callable[[str, Tensor], Tensor]
"""From a tensor's name in the batch and the tensor to what stands in its place."""


def mapped(batch: Batch, change: Change) -> Batch:
    """The batch with every tensor changed.

    Names are "inputs", "targets", "index", "labelled", "student 0: logits",
    "teacher 1: stage2", and of a view "mixup: inputs", "mixup: partner",
    "mixup: share", "mixup: student 0: logits".
    """

    def side(prefix: str, who: str, all_: tuple[Outputs, ...]) -> tuple[Outputs, ...]:
        return tuple(
            _mapped_outputs(f"{prefix}{who} {k}: ", outputs, change)
            for k, outputs in enumerate(all_)
        )

    views = {
        name: ExtraView(
            change(f"{name}: inputs", view.inputs),
            change(f"{name}: partner", view.partner),
            change(f"{name}: share", view.share),
            side(f"{name}: ", "student", view.students),
            side(f"{name}: ", "teacher", view.teachers),
        )
        for name, view in batch.views.items()
    }
    return replace(
        batch,
        inputs=change("inputs", batch.inputs),
        targets=change("targets", batch.targets),
        index=change("index", batch.index),
        labelled=change("labelled", batch.labelled),
        students=side("", "student", batch.students),
        teachers=side("", "teacher", batch.teachers),
        views=views,
    )


def _mapped_outputs(prefix: str, outputs: Outputs, change: Change) -> Outputs:
    changed = {k: change(f"{prefix}{k}", v) for k, v in outputs.features.items()}
    return replace(
        outputs, logits=change(f"{prefix}logits", outputs.logits), features=changed
    )


def named(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of the batch, by its name."""
    found: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> Tensor:
        found[name] = tensor
        return tensor

    mapped(batch, keep)
    return found


def is_students(name: str) -> bool:
    """Whether the tensor of this name is a student's answer."""
    return "student " in name


def is_teachers(name: str) -> bool:
    return "teacher " in name


def is_answer(name: str) -> bool:
    return is_students(name) or is_teachers(name)


def copied(batch: Batch) -> Batch:
    """Detached copies of everything, the adapters too: nothing is shared with it."""
    apart = mapped(
        batch, lambda _, x: x.detach().clone(memory_format=torch.preserve_format)
    )
    return replace(
        apart,
        adapters=_copy_of(batch.adapters),
        generator=torch.Generator().manual_seed(0),
    )


def _copy_of(adapters: nn.Module | None) -> nn.Module | None:
    """A copy; tensors that a normalisation computed of others are detached in it."""
    memo: dict[int, Any] = {}
    for module in adapters.modules() if adapters is not None else ():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return deepcopy(adapters, memo)


def live(batch: Batch) -> Batch:
    """A copy whose students' answers, of numbers, want gradients."""

    def leaf(name: str, tensor: Tensor) -> Tensor:
        wants = is_students(name) and tensor.is_floating_point()
        return tensor.requires_grad_() if wants else tensor

    return mapped(copied(batch), leaf)


def first_items(batch: Batch, items: int) -> Batch:
    """The first items of the batch alone; a mixture's partners are among them."""

    def cut(name: str, tensor: Tensor) -> Tensor:
        kept = tensor[:items]
        return kept % items if name.endswith(": partner") else kept

    return mapped(batch, cut)


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """With everybody's answers in this precision."""
    return mapped(
        batch,
        lambda name, x: x.to(dtype) if is_answer(name) and x.is_floating_point() else x,
    )


def scaled_logits(batch: Batch, factor: float) -> Batch:
    """With everybody's logits multiplied."""
    return mapped(
        batch,
        lambda name, x: (
            x * factor if is_answer(name) and name.endswith(": logits") else x
        ),
    )


def terms_of(strategy: Strategy, batch: Batch) -> dict[str, Tensor]:
    """The strategy's terms of a batch, with its random streams at their start.

    On a copy (`live`) whose adapters and tensors nothing else shares. What it changes
    of the process's settings is put back.
    """
    batch.generator.manual_seed(0)
    before = settings()
    try:
        with global_stream("conformance"):
            return strategy.at(batch.progress).terms(batch)
    except RuntimeError as error:
        if INNER not in str(error):
            raise
        raise DoesNotApply(
            "its loss differentiates the students' answers within the step, which here "
            "come from no student"
        ) from error
    finally:
        put_back(before)


def parts(module: nn.Module | None) -> Iterator[tuple[str, nn.Parameter]]:
    """Its parameters by name; none of no module."""
    if module is not None:
        yield from module.named_parameters()
