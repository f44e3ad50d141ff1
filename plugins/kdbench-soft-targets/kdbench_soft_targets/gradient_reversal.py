"""A learned number that climbs on the loss that everything else descends."""

import torch
from torch import Tensor, nn


class Adversary(nn.Module):
    """A learned share (a scalar in (0, 1)) that ascends on what it is used in."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.ones(()))

    def forward(self, strength: float) -> Tensor:
        share = self.raw.sigmoid()
        held = share.detach()
        return held - strength * (share - held)  # its value, its gradient reversed
