"""On-the-fly native ensemble. Lan, Zhu & Gong 2018, NeurIPS, arXiv:1806.04606.

K branches share all but what is behind the last stage but one: the student itself,
which is deployed, and K - 1 newly drawn parts like its own. z_t = sum_k g_k z_k, with
(K,) gates g = softmax(relu(batch norm(linear))) of what they share, pooled over space.
loss = ce_weight * sum_k CE(z_k, y) + ensemble_weight * CE(z_t, y)
     + kd_weight * T^2 sum_k KL(p_t || p_k), with p = softmax(z / T), p_t a constant

The authors' code raises kd_weight over its first 80 epochs; the paper and we do not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, label_loss, soft_kl
from kdbench_mutual_learning.branches import branched, why_no_branches
from kdbench_mutual_learning.ranges import refuse_fewer_than


@dataclass(frozen=True, kw_only=True)
class NativeEnsemble(Strategy):
    """Branches of one network learn from their gated ensemble."""

    name = "one"
    family = "mutual learning"
    paper = "Lan et al. 2018, arXiv:1806.04606"
    taps = ("stages",)
    teachers = 0

    branches: int = 3  # number of branches, >= 2, the student included; paper
    temperature: float = 3.0  # dimensionless, > 0; authors' code
    ce_weight: float = 1.0  # >= 0, on the branches' CE; paper
    ensemble_weight: float = 1.0  # >= 0, on the ensemble's CE; paper
    kd_weight: float = 1.0  # >= 0, on T^2 KL; paper

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(2, self, "branches")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:  # noqa: ARG002
        return why_no_branches(student)

    def adapters(self, student: Tapped, teacher: Tapped | None) -> nn.Module:  # noqa: ARG002
        return branched(student, self.branches)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        shared = list(batch.student.features.values())[-2]
        branches, gates = batch.adapters(batch.student.logits, shared)
        ensemble = (gates.T[..., None] * branches).sum(dim=0)
        ce = [label_loss(batch.task, z, batch.targets) for z in (*branches, ensemble)]
        kd = [soft_kl(z, ensemble, self.temperature) for z in branches]
        return {
            "ce": self.ce_weight * torch.stack(ce[:-1]).sum(),
            "ensemble": self.ensemble_weight * ce[-1],
            "kd": self.kd_weight * torch.stack(kd).sum(),
        }
