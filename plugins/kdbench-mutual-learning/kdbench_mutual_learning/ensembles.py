"""Several models' outputs together, and the mean of their class distributions."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, at_least_float32, label_target


def stacked(batch: Batch) -> Tensor:
    """The teachers' logits or numbers, (K, B, C), constants."""
    outputs = torch.stack([teacher.logits for teacher in batch.teachers])
    return at_least_float32(outputs.detach())


def log_mean_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log of the mean of softened distributions: (B, C), from (K, B, C) logits."""
    log_p = F.log_softmax(logits / temperature, dim=2)
    return log_p.logsumexp(dim=0) - math.log(len(logits))


def mixed_target(
    batch: Batch, label_weight: float, teacher_weight: float, temperature: float
) -> Tensor:
    """What a student without gradients fits: (B, C) probabilities or (B, K) numbers.

    The weighted mean of the label and the teachers' mean, item by item. Raises
    ValueError where both weights are 0.
    """
    total = label_weight + teacher_weight
    if total == 0:
        raise ValueError("both weights are 0: there is nothing to learn")
    if batch.task.kind == "regression":
        mean = stacked(batch).mean(0)
    else:
        mean = log_mean_softmax(stacked(batch), temperature).exp()
    label = label_target(batch.task, batch.targets)
    return (label_weight * label + teacher_weight * mean) / total


class MeanProbability(nn.Module):
    """Log of the mean of several models' probabilities, as logits (B, C)."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, inputs: Tensor) -> Tensor:
        logits = [at_least_float32(model(inputs)) for model in self.models]
        return log_mean_softmax(torch.stack(logits))
