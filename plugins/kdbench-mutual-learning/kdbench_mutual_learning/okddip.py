"""Online distillation with diverse peers. Chen et al. 2020, AAAI, arXiv:1912.00350,
network-based form: a group leader (student 0, deployed) and m peers (the others).

q_a = softmax(z_a / T); h_a the pooled features of peer a
w_ab = softmax over b of <L h_a, E h_b>, for each item; L and E are learned
loss = sum over all students of ce_weight * CE(z, y)
     + peer_weight * T^2 sum_a KL(sum_b w_ab q_b || q_a)
     + leader_weight * T^2 KL(mean_b q_b || q_leader), with a and b over the peers

Nothing is held constant, as in the authors' code: L and E learn through the targets
alone, and the targets' peers learn, too. That code mixes logits instead of
distributions, and raises both weights over its first 80 epochs as exp(-5 (1 - t)^2);
we do neither.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, at_least_float32, label_loss
from kdbench_mutual_learning.ranges import refuse_fewer_than


class Attention(nn.Module):
    """Log-weights (B, m, m) of peers for each peer, from pooled features (B, m, D)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.asks = nn.Linear(width, inner, bias=False)  # L
        self.answers = nn.Linear(width, inner, bias=False)  # E

    def forward(self, features: Tensor) -> Tensor:
        scores = self.asks(features) @ self.answers(features).transpose(1, 2)
        log_weights: Tensor = scores.log_softmax(dim=2)
        return log_weights


def two_level_kl(logits: Tensor, log_w: Tensor, temperature: float) -> list[Tensor]:
    """The peers' T^2 KL, summed, and the leader's, in nats: two scalars, batch means.

    From (B, 1 + m, C) logits, the leader's first, and (B, m, m) log-weights.
    """
    log_q = F.log_softmax(logits / temperature, dim=2)
    leader, peers = log_q[:, :1], log_q[:, 1:]
    mixed = (log_w[..., None] + peers[:, None]).logsumexp(dim=2)  # (B, m, C)
    mean = peers.logsumexp(dim=1, keepdim=True) - math.log(peers.shape[1])
    return [
        F.kl_div(q, target, reduction="batchmean", log_target=True) * temperature**2
        for q, target in ((peers, mixed), (leader, mean))
    ]


@dataclass(frozen=True, kw_only=True)
class DiversePeers(Strategy):
    """Peers learn from mixtures of each other, a leader from all of them."""

    name = "okddip"
    family = "mutual learning"
    paper = "Chen et al. 2020, arXiv:1912.00350"
    taps = ("pooled",)
    teachers = 0

    students: int = 4  # number of students, >= 3, the leader included; authors' code
    reduction: int = 8  # pooled width over the width of L h, >= 1; authors' code
    temperature: float = 3.0  # dimensionless, > 0; authors' code
    ce_weight: float = 1.0  # >= 0; paper
    peer_weight: float = 1.0  # >= 0, on the peers' T^2 KL; authors' code
    leader_weight: float = 1.0  # >= 0, on the leader's T^2 KL; authors' code

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(3, self, "students")
        refuse_fewer_than(1, self, "reduction")

    def adapters(self, student: Tapped, teacher: Tapped | None) -> nn.Module:  # noqa: ARG002
        width = math.prod(student.shapes["pooled"])
        return Attention(width, max(1, width // self.reduction))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        logits = torch.stack([one.logits for one in batch.students], dim=1)
        pooled = [one.features["pooled"].flatten(1) for one in batch.students[1:]]
        log_w = batch.adapters(at_least_float32(torch.stack(pooled, dim=1)))
        peers, leader = two_level_kl(at_least_float32(logits), log_w, self.temperature)
        ce = [label_loss(batch.task, s.logits, batch.targets) for s in batch.students]
        return {
            "ce": self.ce_weight * torch.stack(ce).sum(),
            "peers": self.peer_weight * peers,
            "leader": self.leader_weight * leader,
        }
