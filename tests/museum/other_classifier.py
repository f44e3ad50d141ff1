"""Its classifier is said to be its first layer.

checks: classifier
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

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(inputs.flatten(1)))
        return logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="other_classifier",
            summary="one hidden layer",
            build=Net,
            taps={"stage1": "body", "pooled": "head:input"},
            classifier="body.0",
        )
    ]
