"""Its ReLU works in place, on what the tap before it has shown.

checks: taps-kept
company: finishes
"""

import math

from torch import Tensor, nn

from kdbench import Model, hookimpl


class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], outputs: int):
        super().__init__()
        self.dense = nn.Linear(math.prod(input_shape), 16)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(16, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.dense(inputs.flatten(1))))
        return logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="inplace_relu",
            summary="one hidden layer",
            build=Net,
            taps={"preact1": "dense", "stage1": "relu", "pooled": "head:input"},
            classifier="head",
        )
    ]
