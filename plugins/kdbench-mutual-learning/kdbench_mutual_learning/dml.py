"""Deep mutual learning. Zhang et al. 2018, arXiv:1706.00384, equations 1-7.

For each of K peers, loss_k = CE(z_k, y) + 1/(K-1) sum_{j != k} KL(p_j || p_k), with
p = softmax(z) (no temperature) and p_j a constant; the terms add up over the peers.

All peers are updated at once from the same predictions, as the text of section 2.3
says; the paper's algorithm 1 updates them in turn, each seeing the others' newest
predictions, at the price of one more forward pass for each.

In a regression CE and KL are the mean squared differences to the label and to the
other peer's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, label_loss
from kdbench_mutual_learning.precision import at_least_float32
from kdbench_mutual_learning.ranges import refuse_fewer_than_two, refuse_negative


def mutual_losses(peers: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and mean KL from the others, each summed over peers: two scalars.

    `peers` are K >= 2 logits (B, C), `targets` (B,) class indices; nats, batch means.
    """
    log_p = [F.log_softmax(at_least_float32(peer), dim=1) for peer in peers]
    ce = targets.new_zeros((), dtype=log_p[0].dtype)
    mutual = ce
    for k, mine in enumerate(log_p):
        ce = ce + F.nll_loss(mine, targets)
        for j, other in enumerate(log_p):
            if j != k:
                mutual = mutual + F.kl_div(
                    mine, other.detach(), reduction="batchmean", log_target=True
                )
    return ce, mutual / (len(peers) - 1)


def mutual_squares(peers: Sequence[Tensor]) -> Tensor:
    """Mean squared difference to the others, a mean, summed over peers: a scalar.

    `peers` are K >= 2 times (B, D) numbers; the other peer is a constant.
    """
    numbers = [at_least_float32(peer) for peer in peers]
    each = [
        F.mse_loss(mine, other.detach())
        for k, mine in enumerate(numbers)
        for j, other in enumerate(numbers)
        if j != k
    ]
    return torch.stack(each).sum() / (len(peers) - 1)


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
        refuse_fewer_than_two(self, "students")
        refuse_negative(self, ("ce_weight", "mutual_weight"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        peers = [student.logits for student in batch.students]
        if batch.task.kind == "regression":
            own = [label_loss(batch.task, peer, batch.targets) for peer in peers]
            ce, mutual = torch.stack(own).sum(), mutual_squares(peers)
        else:
            ce, mutual = mutual_losses(peers, batch.targets)
        return {"ce": self.ce_weight * ce, "mutual": self.mutual_weight * mutual}
