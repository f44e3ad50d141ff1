"""What `kdbench profile` measures: size and speed of any network, and no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdbench.api import Dataset, Finished, UserError
from kdbench.finishing import SAMPLE
from kdbench.measure import measure_all
from kdbench.measure.runtimes import noise
from kdbench.measure.size import SIZE, int8_bytes
from kdbench.measure.timing import timings
from kdbench.profiles.targets import Target
from kdbench.records import Timing

Sizes = dict[str, float | None]


@dataclass(frozen=True)
class Forms:
    """What is timed: each runtime in each precision with each number of threads."""

    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: tuple[int, ...]
    batch: int | None = None


@dataclass(frozen=True)
class Profile:
    """Sizes by name and timings of one network; `notes` say why a size is None."""

    title: str
    model: str
    dataset: str
    input_shape: tuple[int, ...]
    outputs: int
    sizes: Sizes
    notes: list[str]
    timings: list[Timing]

    def described(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        times = [timing.model_dump(mode="json") for timing in self.timings]
        return {**vars(self), "timings": times}


def profile(
    target: Target, device: str, wanted: Forms, tell: Callable[[str], None]
) -> Profile:
    """Weigh the network and time it in all these forms; `tell` is told what is done.

    Raises UserError where it cannot take its dataset's items.
    """
    module = _tried(target).to(device)
    sizes, notes = weighed(module, target.dataset, device)
    return Profile(
        title=target.title,
        model=target.model,
        dataset=target.dataset.name,
        input_shape=target.dataset.input_shape,
        outputs=target.dataset.task.outputs,
        sizes=sizes,
        notes=notes,
        timings=timings(
            module,
            noise(target.dataset, SAMPLE),
            device=device,
            runtimes=wanted.runtimes,
            precisions=wanted.precisions,
            threads=wanted.threads,
            batch=wanted.batch,
            tell=tell,
        ),
    )


def _tried(target: Target) -> nn.Module:
    """The module, after one pass."""
    try:
        with torch.no_grad():
            target.module(target.dataset.example(1))
    except Exception as error:
        dataset = target.dataset
        raise UserError(
            f"{target.title} cannot take the items of {dataset.name!r}, inputs of "
            f"{dataset.input_shape}: {error}\n  give other inputs with --dataset"
        ) from error
    return target.module


def weighed(
    module: nn.Module, dataset: Dataset, device: str
) -> tuple[Sizes, list[str]]:
    """Every size of a network that is on this device, and why one is None."""
    finished = Finished(
        model=module,
        task=dataset.task,
        device=device,
        sample=dataset.example(1).to(device),
        logits=torch.empty(0, dataset.task.outputs),
        targets=torch.empty(0, dtype=torch.int64),
        teacher_logits=None,
    )
    found = [measure_all(SIZE, scope, finished) for scope in ("run", "model")]
    numbers = found[0].numbers | found[1].numbers
    sizes = {measure.name: numbers[measure.name] for measure in SIZE}
    sizes["flops"] = None if sizes["macs"] is None else 2 * sizes["macs"]
    notes = [*found[0].problems, *found[1].problems]
    unknown = getattr(module, "macs_unknown", "")
    if unknown:
        notes.append(f"macs: {unknown}")
    if sizes["size_int8_bytes"] is None:
        notes.append(f"size_int8_bytes: {int8_bytes(module)[1]}")
    return sizes, notes
