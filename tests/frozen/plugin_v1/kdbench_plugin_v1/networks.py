"""A family of models, one of them by a prefix, and a compression."""

import copy
import dataclasses
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import Model, UserError
from kdbench.api import Shape


class Dense(nn.Module):
    """(B, ...) -> (B, outputs) through two hidden layers."""

    def __init__(self, input_shape: Shape, outputs: int, width: int):
        super().__init__()
        inputs = math.prod(input_shape)
        self.first = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(inputs.flatten(1))))
        return logits


def dense(name: str, width: int) -> Model:
    return Model(
        name=name,
        summary=f"two hidden layers of {width}",
        build=partial(Dense, width=width),
        taps={"stage1": "first", "stage2": "second", "pooled": "head:input"},
        classifier="head",
        version=str(width),
    )


def find(rest: str, host: Any) -> Model:
    if not rest.isdigit():
        raise UserError(f"v1wide:{rest}: write a width")
    return dense(f"v1wide:{rest}", int(rest))


def rounded(base: Model) -> Model:
    """The finished student with weights on a grid."""
    return dataclasses.replace(
        base,
        name=f"{base.name}/v1_rounded",
        summary=f"{base.summary}, rounded",
        from_teacher=_rounded,
        deploy=None,
    )


def _rounded(student: nn.Module, input_shape: Shape, outputs: int) -> nn.Module:
    copied = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    return copied
