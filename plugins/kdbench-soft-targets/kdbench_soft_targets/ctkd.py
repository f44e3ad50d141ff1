"""Curriculum temperature. Li et al. 2023, arXiv:2211.16231; the global temperature.

T = start_temperature + temperature_range * sigmoid(raw), raw learned and first 1
loss = ce_weight * CE(z_s, y) + kd_weight * T^2 KL(softmax(z_t / T) || softmax(z_s / T))

The student descends on the loss and raw ascends: its gradient is times -strength, with
strength (1 - cos(pi * n / ramp_epochs)) / 2 in epoch n = 1, 2, ..., then 1. n counts
from 1 as in the authors' code. T has a gradient through T^2 and both softmaxes.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, label_loss, soft_kl
from kdbench_soft_targets.gradient_reversal import Adversary


@dataclass(frozen=True, kw_only=True)
class CurriculumTemperature(Strategy):
    """Soft targets at a temperature that is learned against the student."""

    name = "ctkd"
    family = "soft targets"
    paper = "Li et al. 2023, arXiv:2211.16231"

    start_temperature: float = 1.0  # dimensionless, > 0, the lowest T; authors' code
    temperature_range: float = 20.0  # dimensionless, >= 0; authors' code
    ramp_epochs: int = 10  # epochs, >= 0, 0 for none; authors' code
    ce_weight: float = 0.1  # >= 0; authors' code
    kd_weight: float = 0.9  # >= 0, on T^2 KL; authors' code

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature_range >= 0:
            raise ValueError(f"temperature_range {self.temperature_range} must be >= 0")

    def strength(self, epoch: float) -> float:
        """Of the reversal: from near 0 to 1 along a cosine."""
        ramp = min(1.0, (math.floor(epoch) + 1) / max(self.ramp_epochs, 1))
        return (1 - math.cos(math.pi * ramp)) / 2

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:  # noqa: ARG002
        return Adversary()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        student, teacher = batch.student.logits, batch.teacher.logits
        share = batch.adapters(self.strength(batch.epoch))
        temperature = self.start_temperature + self.temperature_range * share
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * soft_kl(student, teacher, temperature),
        }
