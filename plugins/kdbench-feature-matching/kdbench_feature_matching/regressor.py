"""The network that leads a student's features to the teacher's width."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench_feature_matching.matching import Shape


class Regressor(nn.Module):
    """relu(norm(project(s))): (B, C, H, W) or (B, D) at the teacher's width.

    One value per channel has no variance: the running statistics stand in for it.
    """

    def __init__(self, student: Shape, teacher: Shape) -> None:
        super().__init__()
        own, wide, maps = student[0], teacher[0], len(student) == 3
        self.project = nn.Conv2d(own, wide, 1) if maps else nn.Linear(own, wide)
        self.norm = nn.BatchNorm2d(wide) if maps else nn.BatchNorm1d(wide)

    def forward(self, feature: Tensor) -> Tensor:
        projected: Tensor = self.project(feature.to(self.project.weight.dtype))
        self.norm.train(self.training and projected.numel() > projected.shape[1])
        return F.relu_(self.norm(projected))
