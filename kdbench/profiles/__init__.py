"""What `kdbench profile` measures: size and speed of any network, and no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from kdbench.api import Dataset, Finished, UserError
from kdbench.finishing import SAMPLE
from kdbench.measure import measure_all
from kdbench.measure.runtimes import noise
from kdbench.measure.size import SIZE, int8_bytes
from kdbench.measure.timing import timings
from kdbench.profiles.targets import OTHER_INPUTS, Target
from kdbench.records import Timing

Sizes = dict[str, float | None]
INT8 = "size_int8_bytes"
"""The one size that says itself why it is None."""


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

    The network can take its dataset's items (`tried`).
    """
    module = target.module.to(device)
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


def tried(target: Target) -> None:
    """One pass, on the CPU. UserError where it cannot take its dataset's items."""
    try:
        with torch.no_grad():
            target.module(target.dataset.example(1))
    except Exception as error:
        dataset = target.dataset
        inputs_are_its_own = not target.by_name or isinstance(error, ImportError)
        raise UserError(
            f"{target.title} cannot take the items of {dataset.name!r}, inputs of "
            f"{dataset.input_shape}: {error}"
            + ("" if inputs_are_its_own else OTHER_INPUTS)
        ) from error


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
    why: list[str] = []

    def int8_size(finished: Finished) -> int | None:
        size, reason = int8_bytes(finished.model)
        why.append(reason)
        return size

    measures = [
        replace(measure, compute=int8_size) if measure.name == INT8 else measure
        for measure in SIZE
    ]
    found = [measure_all(measures, scope, finished) for scope in ("run", "model")]
    numbers = found[0].numbers | found[1].numbers
    sizes = {measure.name: numbers[measure.name] for measure in SIZE}
    sizes["flops"] = None if sizes["macs"] is None else 2 * sizes["macs"]
    notes = [*found[0].problems, *found[1].problems]
    unknown = getattr(module, "macs_unknown", "")
    if unknown:
        notes.append(f"macs: {unknown}")
    notes += [f"{INT8}: {reason}" for reason in why if reason]
    return sizes, notes
