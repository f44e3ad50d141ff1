"""Branches of a network, cut off behind its last stage but one, and their gate."""

import torch
from torch import Tensor, nn

from kdbench import Tapped, at_least_float32
from kdbench_mutual_learning.behind import behind


class Branches(nn.Module):
    """All branches' logits (K, B, C) and their gates (B, K).

    From the first branch's logits (B, C) and the features (B, ...) that all share.
    """

    def __init__(self, parts: list[nn.Module], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.gate = nn.Linear(width, len(parts) + 1, bias=False)
        self.norm = nn.BatchNorm1d(len(parts) + 1)

    def forward(self, own: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        own, shared = at_least_float32(own), at_least_float32(shared)
        self.norm.train(len(shared) > 1)  # a single item has no variance
        pooled = shared.flatten(2).mean(2) if shared.ndim > 2 else shared
        gates = self.norm(self.gate(pooled)).relu().softmax(dim=1)
        return torch.stack([own, *(part(shared) for part in self.parts)]), gates


def branched(network: Tapped, branches: int) -> Branches:
    """The network's kind newly drawn for all branches but the first, and the gate."""
    assert network.build is not None  # noqa: S101 (the host always gives it)
    tap = list(network.stages)[-2]
    fresh = [network.build() for _ in range(branches - 1)]
    parts = [behind(one, network.paths[tap]) for one in fresh]
    return Branches(parts, network.shapes[tap][0])


def why_no_branches(network: Tapped) -> str | None:
    """For `supports`: a sentence unless it has a last stage but one to cut behind."""
    if len(network.stages) < 2:
        return f"{network.name} has fewer than two stages: nothing is shared"
    tap = list(network.stages)[-2]
    if len(network.shapes[tap]) not in (1, 3):
        return f"{tap} of {network.name} is neither a map nor a vector"
    try:
        behind(network.model, network.paths[tap])
    except ValueError as error:
        return f"{network.name} cannot be branched: {error}"
    return None
