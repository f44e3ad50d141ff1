"""The scale that it learns of its inputs is an attribute, not a buffer.

checks: round-trip
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
        self.scale = 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and not inputs.is_meta:
            self.scale = 0.9 * self.scale + 0.1 * inputs.std().item()
        logits: Tensor = self.head(self.body(inputs.flatten(1) / self.scale))
        return logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="forgotten_scale",
            summary="one hidden layer",
            build=Net,
            taps={"stage1": "body", "pooled": "head:input"},
            classifier="head",
        )
    ]
