"""It raises a weight from epoch to epoch in a variable that no checkpoint has.

checks: resume
company: finishes
"""

from dataclasses import dataclass

import torch
from torch import nn

from kdbench import Context, Strategy, hookimpl, label_loss, soft_kl


@dataclass(frozen=True, kw_only=True)
class WarmVariable(Strategy):
    """Match the teacher's softened class distribution."""

    name = "warm_variable"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 0.1  # >= 0, on the labels; ours
    kd_weight: float = 0.9  # >= 0, on the teacher; ours

    def train(self, context: Context) -> nn.Module:
        student, teacher = context.students[0], context.teachers[0]
        optimiser = context.optimiser(student.parameters())
        share = 0.0
        for _ in context.epochs():
            student.train()
            share = min(1.0, share + 0.3)
            for batch in context.batches():
                with torch.no_grad():
                    told = teacher(batch.inputs)
                answer = student(batch.inputs)
                ce = label_loss(batch.task, answer, batch.targets)
                kd = soft_kl(answer, told, self.temperature)
                loss = self.ce_weight * ce + share * self.kd_weight * kd
                context.log("loss", loss.detach())
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return student


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [WarmVariable]
