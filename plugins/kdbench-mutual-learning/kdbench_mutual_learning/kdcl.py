"""Online distillation by collaborative learning. Guo et al. 2020, CVPR (KDCL-MinLogit).

z_t(c) = min_k [z_k(c) - z_k(y)] for each class c, over the K peers k: the hardest
comparison that any of them makes with the true class y, where z_t(y) = 0
loss = sum_k [ce_weight * CE(z_k, y) + kd_weight * T^2 KL(p_t || p_k)]
with p = softmax(z / T); the target is a constant.

In the paper each peer sees its own augmentation of an image, and peers may differ in
size; here all see the same view, as the protocol has it, and are of one kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss, soft_kl
from kdbench_mutual_learning.ranges import refuse_fewer_than


def min_logit(peers: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The smallest logit relative to the true class's: (B, C), a constant.

    `peers` are K times (B, C) logits, `targets` (B,) class indices.
    """
    stacked = at_least_float32(torch.stack(tuple(peers)).detach())  # (K, B, C)
    true = targets[None, :, None].expand(len(stacked), -1, 1)
    return (stacked - stacked.gather(2, true)).amin(dim=0)


@dataclass(frozen=True, kw_only=True)
class CollaborativeLearning(Strategy):
    """Peers learn from the labels and from their own ensemble's hardest logits."""

    name = "kdcl"
    family = "mutual learning"
    paper = "Guo et al. 2020, CVPR"
    teachers = 0

    students: int = 2  # number of peers, >= 2; paper
    temperature: float = 2.0  # dimensionless, > 0; paper, as others' code cites it
    ce_weight: float = 1.0  # >= 0; paper
    kd_weight: float = 1.0  # >= 0, on T^2 KL; paper, as others' code cites it

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(2, self, "students")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        peers = [student.logits for student in batch.students]
        target = min_logit(peers, batch.targets)
        ce = [label_loss(batch.task, peer, batch.targets) for peer in peers]
        kd = [soft_kl(peer, target, self.temperature) for peer in peers]
        return {
            "ce": self.ce_weight * torch.stack(ce).sum(),
            "kd": self.kd_weight * torch.stack(kd).sum(),
        }
