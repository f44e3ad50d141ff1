"""Its second stage comes before its first.

checks: taps
company: finishes
"""

import math

from torch import Tensor, nn

from kdbench import Model, hookimpl


class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], outputs: int):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(math.prod(input_shape), 16), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(inputs.flatten(1))))
        return logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="swapped_stages",
            summary="one hidden layer",
            build=Net,
            taps={"stage1": "second", "stage2": "first", "pooled": "head:input"},
            classifier="head",
        )
    ]
