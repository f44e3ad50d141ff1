"""What every model of texts does first and last: mask, cut, embed and average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PADDING = 0
TOKEN_STD = 0.1
"""Of fresh token vectors. With torch's 1.0 a small student learns several times slower,
since a mean over a text's unit vectors hardly moves with any one of them."""


def token_vectors(vocabulary: int, width: int) -> nn.Embedding:
    """A table of (vocabulary, width) vectors; padding is the vector 0."""
    table = nn.Embedding(vocabulary, width, padding_idx=PADDING)
    with torch.no_grad():
        table.weight.mul_(TOKEN_STD)
    return table


def cut_to_longest(ids: Tensor) -> Tensor:
    """(B, L) ids without the columns in which every text has ended; one is kept.

    Without data (on the meta device, or while it is traced to be compiled or exported)
    nothing can be known to have ended.
    """
    if ids.is_meta or torch.compiler.is_compiling():
        return ids
    used = (ids != PADDING).any(dim=0).nonzero()
    return ids[:, : int(used[-1]) + 1 if len(used) else 1]


def presence(ids: Tensor) -> Tensor:
    """(B, L) bool: where a text is. The first position counts even of an empty one."""
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    return (ids != PADDING) | first


def mean_over_text(states: Tensor, present: Tensor) -> Tensor:
    """(B, L, D) -> (B, D): the mean over each text's own positions."""
    own = present.unsqueeze(2).to(states.dtype)
    return (states * own).sum(dim=1) / own.sum(dim=1)


class WordDropout(nn.Module):
    """Hides whole tokens while training: each (B, L, D) vector becomes 0.

    Iyyer et al. 2015 (deep averaging networks), section 2.2. What is left is not scaled
    up: a text of fewer words is a text.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return states
        chance = torch.rand(states.shape[:2], device=states.device)
        return states * (chance >= self.share).unsqueeze(2)
