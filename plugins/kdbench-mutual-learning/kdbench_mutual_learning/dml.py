"""Deep mutual learning. Zhang et al. 2018, arXiv:1706.00384, equations 1-7.

For each of K peers, loss_k = CE(z_k, y) + 1/(K-1) sum_{j != k} KL(p_j || p_k), with
p = softmax(z) (no temperature) and p_j a constant; the terms add up over the peers.

All peers are updated at once from the same predictions, as section 2.3 says; the
paper's algorithm 1 updates them in turn, each seeing the others' newest predictions, at
the price of one more forward pass for each. In a regression CE and KL are the mean
squared differences to the label and to the other peer's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, at_least_float32, label_loss, soft_kl
from kdbench_mutual_learning.ranges import refuse_fewer_than


def mutual_loss(peers: Sequence[Tensor], *, logits: bool = True) -> Tensor:
    """Mean divergence from the other peers, summed over peers: a scalar.

    `peers` are K >= 2 times (B, C) logits (KL in nats) or else numbers (squares); the
    other peer is a constant.
    """
    wide = [at_least_float32(peer) for peer in peers]
    pairs = [(a, b.detach()) for a in wide for b in wide if a is not b]
    each = [soft_kl(a, b) if logits else F.mse_loss(a, b) for a, b in pairs]
    return sum(each[1:], each[0]) / (len(peers) - 1)


@dataclass(frozen=True, kw_only=True)
class MutualLearning(Strategy):
    """Peers learn from the labels and from each other, without a teacher."""

    name = "dml"
    family = "mutual learning"
    paper = "Zhang et al. 2018, arXiv:1706.00384"
    tasks = KINDS
    teachers = 0

    students: int = 2  # number of peers, >= 2; paper
    ce_weight: float = 1.0  # >= 0; paper
    mutual_weight: float = 1.0  # >= 0, on the mean KL from the other peers; paper

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(2, self, "students")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        peers = [student.logits for student in batch.students]
        own = [label_loss(batch.task, peer, batch.targets) for peer in peers]
        mutual = mutual_loss(peers, logits=batch.task.kind != "regression")
        return {
            "ce": self.ce_weight * sum(own[1:], own[0]),
            "mutual": self.mutual_weight * mutual,
        }
