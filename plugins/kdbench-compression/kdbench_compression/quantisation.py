"""Quantisation-aware distillation: students that are deployed with int8 weights.

Jacob et al. 2018, arXiv:1712.05877: fake quantisation in training, integers after.
Per-channel symmetric int8 weights and per-tensor uint8 activations, as Krishnamoorthi
2018, arXiv:1806.08342, recommends. Any strategy trains them; the teacher stays float.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Literal, cast

import torch
from torch import nn

from kdbench import Model, UserError
from kdbench.api import Shape
from kdbench_compression.deployed import (
    Int8Conv2d,
    Int8Layer,
    Int8Linear,
    Int8Network,
    ThroughFloat,
)
from kdbench_compression.inherit import inherited, refuse_unfit
from kdbench_compression.ranges import MovingRange
from kdbench_compression.student import (
    INPUTS,
    OUTPUTS,
    between,
    fake_quantised,
    replace,
    units,
)


def int8(base: Model, start: Literal["fresh", "teacher"] = "fresh") -> Model:
    """The model `int8_<base>`: `base` with 8-bit weights and activations.

    It starts fresh, or, as `int8_<base>_from_teacher`, from the weights of the pair's
    teacher, which must be a `base`; a pruned base always starts from its teacher.
    Raises UserError for an unfit model.
    """
    refuse_unfit(base, "quantised")
    from_teacher, name = base.from_teacher, f"int8_{base.name}"
    if from_teacher is None and start == "teacher":
        from_teacher, name = partial(inherited, base), f"{name}_from_teacher"
    quantise = partial(fake_quantised, classifier=base.classifier)
    return dataclasses.replace(
        base,
        name=name,
        summary=f"{base.summary}; 8-bit weights and activations",
        build=partial(_build, base, quantise),
        from_teacher=from_teacher and partial(_from_teacher, from_teacher, quantise),
        deploy=deploy,
    )


def _from_teacher(
    start: Callable[[nn.Module, Shape, int], nn.Module],
    quantise: Callable[[nn.Module], nn.Module],
    teacher: nn.Module,
    input_shape: Shape,
    outputs: int,
) -> nn.Module:
    return quantise(start(teacher, input_shape, outputs))


def _build(
    base: Model,
    quantise: Callable[[nn.Module], nn.Module],
    input_shape: Shape,
    outputs: int,
) -> nn.Module:
    # Whether int8 tensors get through is known now, not after the training; the trial
    # takes nothing from the student's random stream.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        trial = deploy(quantise(base.build(input_shape, outputs)))
        try:
            trial(torch.zeros(1, *input_shape))
        except RuntimeError as error:
            raise UserError(
                f"{base.name} cannot be quantised: between its modules it does what "
                f"int8 tensors cannot ({' '.join(str(error).split())[:80]}...); make "
                "that a module of its own"
            ) from error
    return quantise(base.build(input_shape, outputs))


def deploy(student: nn.Module) -> Int8Network:
    """The trained student with int8 weights; the student itself is left as it is.

    Its answers are those of the student in eval mode, but for activations that lie
    within float32 rounding of the border between two of their 256 values.
    """
    network = deepcopy(student).requires_grad_(False)
    for module in network.modules():  # those of fake quantisation and of taps
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for path in between(student):
        inner = network.get_submodule(path)
        replace(network, path, ThroughFloat(inner, _released(inner, OUTPUTS)))
    for unit in units(student):
        last = network.get_submodule(unit.last)
        moving = _released(last, OUTPUTS) if hasattr(last, OUTPUTS) else None
        norm = network.get_submodule(unit.norm) if unit.norm else None
        layer = network.get_submodule(unit.layer)
        kind = Int8Conv2d if isinstance(layer, nn.Conv2d) else Int8Linear
        new: Int8Layer = kind(layer, norm, unit.relu is not None, moving)  # type: ignore[arg-type]
        for path in unit.paths:
            replace(network, path, nn.Identity())
        replace(network, unit.layer, new)
    return Int8Network(network, _released(network, INPUTS)).eval()


def _released(module: nn.Module, name: str) -> MovingRange:
    """Take the range off the module."""
    moving = cast(MovingRange, module.get_submodule(name))
    delattr(module, name)
    return moving
