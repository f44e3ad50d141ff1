"""Its weights are drawn by Python's generator, whoever has used that before.

checks: own-randomness
company: finishes
"""

import math
import random

import torch
from torch import Tensor, nn

from kdbench import Model, hookimpl


class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], outputs: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(math.prod(input_shape), 16), nn.ReLU())
        self.head = nn.Linear(16, outputs)
        with torch.no_grad():
            for weight in self.head.weight.view(-1):
                weight.fill_(random.gauss(0, 0.1))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(inputs.flatten(1)))
        return logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="python_start",
            summary="one hidden layer",
            build=Net,
            taps={"stage1": "body", "pooled": "head:input"},
            classifier="head",
        )
    ]
