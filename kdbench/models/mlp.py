"""Multi-layer perceptrons: dense layers with ReLU, on flattened inputs.

With batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167) before each ReLU, or without.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn

from kdbench.api import Model, Shape


class MLP(nn.Module):
    """(B, ...) -> (B, outputs) through hidden layers of the given widths."""

    def __init__(
        self,
        input_shape: Shape,
        outputs: int,
        widths: tuple[int, ...],
        batch_norm: bool = False,
    ):
        super().__init__()
        sizes = (math.prod(input_shape), *widths)
        self.layers = nn.Sequential(
            *(
                _layer(i, o, batch_norm)
                for i, o in zip(sizes, widths, strict=False)  # sizes is one longer
            )
        )
        self.classifier = nn.Linear(sizes[-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.layers(inputs.flatten(1)))
        return logits


def _layer(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    if not batch_norm:
        return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())
    return nn.Sequential(
        nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
    )


def mlp(*widths: int, batch_norm: bool = False) -> Model:
    """The model `mlp_<width>_<width>...` or `mlp_bn_...`; a hidden layer is a stage."""
    taps = {}
    for i in range(len(widths)):
        taps[f"preact{i + 1}"] = f"layers.{i}.{1 if batch_norm else 0}"
        taps[f"stage{i + 1}"] = f"layers.{i}"
    units = f"hidden layers of {', '.join(map(str, widths))} units"
    return Model(
        name="_".join(["mlp", *(["bn"] if batch_norm else []), *map(str, widths)]),
        summary=f"MLP with {units}" + (" and batch norm" if batch_norm else ""),
        build=partial(MLP, widths=widths, batch_norm=batch_norm),
        taps={**taps, "maps": "classifier:input", "pooled": "classifier:input"},
        classifier="classifier",
    )
