"""What the methods that convolve features share: vectors are maps of 1x1."""

import math

import torch.nn.functional as F
from torch import Tensor, nn


def as_map(feature: Tensor) -> Tensor:
    """(B, D) as (B, D, 1, 1); maps (B, C, H, W) as they are."""
    return feature[:, :, None, None] if feature.ndim == 2 else feature


class Norm(nn.BatchNorm2d):
    """Batch norm that trains on a single item of 1x1 by its running values.

    The variance of one value is none, and torch would raise an error.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training or len(maps) * math.prod(maps.shape[2:]) > 1:
            return super().forward(maps)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(maps, mean, var, self.weight, self.bias, eps=self.eps)


def connector(channels: int, width: int) -> nn.Sequential:
    """1x1 convolution without bias, batch norm, ReLU: (B, width) from (B, C, 1, 1)."""
    lead = nn.Conv2d(channels, width, 1, bias=False)
    return nn.Sequential(lead, Norm(width), nn.ReLU(), nn.Flatten())
