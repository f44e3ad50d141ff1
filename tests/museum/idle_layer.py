"""It has a layer that no answer goes through.

checks: gradients
company: finishes
"""

import math

from torch import Tensor, nn

from kdbench import Model, hookimpl


class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], outputs: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(math.prod(input_shape), 16), nn.ReLU())
        self.head = nn.Linear(16, outputs)
        self.projection = nn.Linear(16, 16)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(inputs.flatten(1)))
        return logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="idle_layer",
            summary="one hidden layer",
            build=Net,
            taps={"stage1": "body", "pooled": "head:input"},
            classifier="head",
        )
    ]
