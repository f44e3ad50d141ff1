"""Split transfer, the seed articles: K sub-models of one large model train alone, then
learn from each other's outputs until they agree.

Phase 1, the first `split_share` of the epochs: each minimises CE(z_k, y).
Phase 2: with q_k the mean of the other sub-models' softmax(z_j), a constant, each
minimises transfer_weight * mean_{b,c} (softmax(z_k) - q_k)^2 + ce_weight * CE(z_k, y),
until mean_{k,b,c} |softmax(z_k) - q_k| over an epoch is below `tolerance`.
Sub-model 0 is deployed. In a regression softmax(z) is the number itself, in standard
deviations of the training targets, and CE the squared error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import Batch, Context, Strategy, Task, at_least_float32, label_loss
from kdbench_mutual_learning.ranges import refuse_fewer_than


def gaps(outputs: Sequence[Tensor], *, probabilities: bool = True) -> Tensor:
    """softmax(z_k) minus the mean of the others', a constant: (K, B, C), K >= 2.

    Of numbers instead of logits where they are not `probabilities`.
    """
    p = at_least_float32(torch.stack(tuple(outputs)))
    p = p.softmax(dim=2) if probabilities else p
    fixed = p.detach()
    return p - (fixed.sum(dim=0) - fixed) / (len(p) - 1)


def transfer_loss(gap: Tensor) -> Tensor:
    """Mean square of (K, B, C) gaps over batch and classes, summed over sub-models."""
    return gap.square().mean(dim=(1, 2)).sum()


def disagreement(gap: Tensor) -> Tensor:
    """Mean absolute value of (K, B, C) gaps: 0 for full agreement."""
    return gap.detach().abs().mean()


@dataclass(frozen=True, kw_only=True)
class SplitTransfer(Strategy):
    """Sub-models that train alone, then learn from each other until they agree."""

    name = "split_transfer"
    family = "mutual learning"
    paper = "the seed articles (unpublished)"
    tasks = ("classification", "regression")
    teachers = 0

    students: int = 2  # number of sub-models, >= 2, the articles' K; the articles
    split_share: float = 0.5  # share of the epochs trained alone, [0, 1]; our choice
    transfer_weight: float = 1.0  # >= 0, phase 2, on the mean square; the articles
    ce_weight: float = 0.0  # >= 0, phase 2 only (1 in phase 1); the articles use none
    tolerance: float = 1e-4  # probability or deviation, >= 0; stop below it; articles

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(2, self, "students")
        if not 0 <= self.split_share <= 1:
            raise ValueError(f"split_share must be in [0, 1], not {self.split_share}")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be >= 0, not {self.tolerance}")

    def train(self, context: Context) -> nn.Module:
        parameters = [p for model in context.students for p in model.parameters()]
        optimiser = context.optimiser(parameters)
        alone = round(self.split_share * context.recipe.epochs)
        for epoch in context.epochs():
            # Asked here, not where it is set, so that the last epoch is stored.
            if context.state.get("agreed"):
                break
            for model in context.students:
                model.train()
            if epoch < alone:
                self._train_alone(context, optimiser)
            else:
                left = self._transfer(context, optimiser)
                context.state["agreed"] = float(left < self.tolerance)
        return context.students[0]

    def _train_alone(self, context: Context, optimiser: torch.optim.Optimizer) -> None:
        """One epoch of phase 1."""
        for batch in context.batches():
            ce = label_losses(batch.task, answers(context, batch), batch.targets)
            context.log("ce", ce.detach())
            step(optimiser, ce)

    def _transfer(self, context: Context, optimiser: torch.optim.Optimizer) -> float:
        """One epoch of phase 2: the mean disagreement over its items."""
        total: Tensor | float = 0.0
        items = 0
        for batch in context.batches():
            logits = answers(context, batch)
            gap = gaps(logits, probabilities=batch.task.kind == "classification")
            loss = self.transfer_weight * transfer_loss(gap)
            context.log("transfer", loss.detach())
            if self.ce_weight:
                own = label_losses(batch.task, logits, batch.targets)
                ce = self.ce_weight * own
                context.log("ce", ce.detach())
                loss = loss + ce
            step(optimiser, loss)
            between = disagreement(gap)
            context.log("disagreement", between)
            total = total + between * len(batch.targets)  # read once, at the end
            items += len(batch.targets)
        return float(total) / max(items, 1)


def answers(context: Context, batch: Batch) -> list[Tensor]:
    """Every sub-model's logits (B, C)."""
    return [model(batch.inputs) for model in context.students]


def label_losses(task: Task, outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The task's loss on the labels, batch mean, summed over the sub-models."""
    return torch.stack([label_loss(task, z, targets) for z in outputs]).sum()


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update of every sub-model."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
    optimiser.step()
