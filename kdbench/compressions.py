"""What can be done to a finished student with the host alone: int8 after training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from kdbench.api import Compression, Model, Shape, UserError, hookimpl
from kdbench.forms import quantised

Quantise = Callable[[nn.Module], nn.Module]
Refusal = Callable[[nn.Module], str | None]


@hookimpl
def kdbench_compressions() -> list[Compression]:
    """Quantised by torchao; nothing is trained, and no data is seen."""
    dynamic = (quantised.int8_dynamic, quantised.nothing_dense)
    weights = (quantised.int8_weights, quantised.nothing_with_weights)
    return [
        Compression(
            name="int8_dynamic",
            summary="int8 dense layers, their inputs quantised as they come (torchao)",
            model=partial(_model, "int8_dynamic", *dynamic),
            missing=lambda: quantised.missing() or quantised.inexact(),
        ),
        Compression(
            name="int8_weights",
            summary="int8 weights of dense layers and convolutions (torchao)",
            model=partial(_model, "int8_weights", *weights),
            missing=quantised.missing,
        ),
    ]


def _model(name: str, quantise: Quantise, refusal: Refusal, base: Model) -> Model:
    """The model `<base>/<name>`; raises UserError where there is nothing to quantise.

    For want of a layer, its `build` raises.
    """
    if base.learner != "gradient":
        raise UserError(f"{base.name} has no weights to quantise: it is no network")
    if getattr(base.deploy, "func", None) is _deployed:
        raise UserError(f"{base.name} is quantised already")
    return dataclasses.replace(
        base,
        name=f"{base.name}/{name}",
        summary=f"{base.summary}; {name}",
        build=partial(_built, base, refusal),
        from_teacher=partial(_from_student, quantise),
        deploy=partial(_deployed, base.deploy, quantise),
    )


def _built(base: Model, refusal: Refusal, *size: Any) -> nn.Module:
    network = base.build(*size)
    why = refusal(network)
    if why:
        raise UserError(f"{base.name} cannot be quantised: {why}")
    return network


def _from_student(
    quantise: Quantise, student: nn.Module, _input_shape: Shape, _outputs: int
) -> nn.Module:
    """Quantised at once: the student is what `base.deploy`, or the strategy, left."""
    return quantise(student)


def _deployed(
    before: Quantise | None, quantise: Quantise, network: nn.Module
) -> nn.Module:
    """A network as `build` gives it, deployed; one that is quantised stays as it is."""
    kinds = (quantised.Int8Linear, quantised.Int8Conv)
    if any(isinstance(part, kinds) for part in network.modules()):
        return network
    return quantise(before(network) if before else network)
