"""In training it answers with its features, too.

checks: builds
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

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.body(inputs.flatten(1))
        logits: Tensor = self.head(features)
        return (logits, features) if self.training else logits


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        Model(
            name="two_answers",
            summary="one hidden layer",
            build=Net,
            taps={"stage1": "body", "pooled": "head:input"},
            classifier="head",
        )
    ]
