"""How many of a student's weights are zero."""

from __future__ import annotations

import torch
from torch import nn

from kdbench import Finished, Measure
from kdbench.measure.size import parameters


def zeros_and_weights(network: nn.Module) -> tuple[int, int]:
    """How many weights are exactly zero, and how many there are.

    Weights are parameters of two dimensions or more, and int8 tensors of as many,
    whose zeros are those that are stored; biases and batch norm are none.
    """
    names = {name for name, _ in network.named_parameters()}
    weights = [
        value
        for name, value in network.state_dict().items()
        if value.ndim > 1 and (name in names or value.dtype == torch.int8)
    ]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros, sum(weight.numel() for weight in weights)


def sparsity(finished: Finished) -> float | None:
    """Share of the weights that are zero, in percent; None where there are none."""
    zeros, weights = zeros_and_weights(finished.model)
    return 100 * zeros / weights if weights else None


def nonzero_parameters(finished: Finished) -> int | None:
    """Parameters without the weights that are zero; None where they are unknown."""
    known = parameters(finished.model)
    return None if known is None else known - zeros_and_weights(finished.model)[0]


MEASURES = [
    Measure(
        name="sparsity",
        summary="weights that are zero, of all but biases and norms",
        unit="%",
        better="higher",
        compute=sparsity,
    ),
    Measure(
        name="nonzero_parameters",
        summary="parameters without the weights that are zero",
        unit="count",
        better="lower",
        compute=nonzero_parameters,
    ),
]
