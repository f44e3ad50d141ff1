"""A loaded dataset is checked against what it declares, before anything starts."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import Data, Dataset, Split, UserError
from kdbench.tasks import Task


def loaded(dataset: Dataset, data_dir: Path | None, download: bool) -> Data:
    """The dataset's data; UserError, with file part and row, where they are wrong."""
    where = f"dataset {dataset.name!r}"
    try:
        data = dataset.load(data_dir, download)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{where} could not be loaded: {what}") from error
    for part, split in (("train", data.train), ("test", data.test)):
        place = f"{where}, {part}"
        _check_inputs(place, split, dataset)
        if dataset.task.columns:
            _check_numbers(place, split.targets, dataset.task)
        else:
            _check_classes(place, split.targets, dataset.task.outputs)
    tokens = bool(dataset.vocabulary)
    if tokens != (not data.mean) or (
        not tokens
        and (not all(math.isfinite(m) for m in data.mean) or min(data.std) <= 0)
    ):
        raise UserError(
            f"{where}: mean {data.mean} and std {data.std} do not normalise"
        )
    return data


def _check_inputs(place: str, split: Split, dataset: Dataset) -> None:
    inputs, targets = split.inputs, split.targets
    if len(inputs) != len(targets) or not len(targets):
        raise UserError(f"{place}: {len(inputs)} inputs and {len(targets)} targets")
    declared = dataset.stored_shape or dataset.input_shape
    if tuple(inputs.shape[1:]) != declared:
        raise UserError(
            f"{place}: inputs are {tuple(inputs.shape[1:])} and not {declared} as "
            "declared"
        )
    if dataset.vocabulary:
        if inputs.dtype != torch.int64:
            raise UserError(f"{place}: tokens must be int64, not {inputs.dtype}")
        lowest, highest = int(inputs.min()), int(inputs.max())
        if lowest < 0 or highest >= dataset.vocabulary:
            raise UserError(
                f"{place}: tokens from {lowest} to {highest} are not in "
                f"0..{dataset.vocabulary - 1}"
            )
    elif inputs.is_floating_point() and not inputs.isfinite().all():
        row = int((~inputs.flatten(1).isfinite().all(1)).nonzero()[0])
        raise UserError(f"{place}: inputs hold NaN or infinity, first in row {row}")


def _check_classes(place: str, targets: Tensor, classes: int) -> None:
    if targets.dtype != torch.int64 or targets.dim() != 1:
        raise UserError(
            f"{place}: targets must be (N,) int64, not {targets.dtype} "
            f"{tuple(targets.shape)}"
        )
    _check_range(place, targets, classes)


def _check_range(place: str, targets: Tensor, classes: int) -> None:
    wrong = ((targets < 0) | (targets >= classes)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{place}: label {targets[row].item():g} in row {row} is not in "
            f"0..{classes - 1} ({len(wrong)} such rows)"
        )


def _check_numbers(place: str, targets: Tensor, task: Task) -> None:
    wanted = (len(targets), task.columns)
    if targets.dtype != torch.float32 or tuple(targets.shape) != wanted:
        raise UserError(
            f"{place}: targets must be float32 {wanted}, not {targets.dtype} "
            f"{tuple(targets.shape)}"
        )
    wrong = (~targets.isfinite().all(1)).nonzero().flatten()
    if len(wrong):
        raise UserError(
            f"{place}: the target in row {int(wrong[0])} is NaN or infinite "
            f"({len(wrong)} such rows); remove these rows"
        )
    for view in task.split(torch.empty(len(targets), task.outputs), targets):
        if view.head.task.kind == "classification":
            head = f"{place}, head {view.head.name!r}"
            _check_range(head, view.targets, view.head.task.outputs)
