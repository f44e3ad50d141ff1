"""Class-wise self-knowledge distillation. Yun et al. 2020, CVPR, arXiv:2003.13964.

loss = ce_weight * CE(z, y) + class_weight * T^2 KL(softmax(z' / T) || softmax(z / T))

z are the logits of an item and z' those of another item x' of the same class, drawn
anew in each step, by the same network in train mode; z' is a constant. The authors'
code halves the batch (x and x' make up one of its size); here x is the whole batch, as
for every other strategy, and x' a second one.
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, label_loss, soft_kl


@dataclass(frozen=True, kw_only=True)
class ClassWiseSelfKD(Strategy):
    """Predict for an item what is predicted for another one of its class."""

    name = "cs_kd"
    family = "mutual learning"
    paper = "Yun et al. 2020, arXiv:2003.13964"
    teachers = 0
    views = ("same_class",)

    temperature: float = 4.0  # dimensionless, > 0; authors' code
    ce_weight: float = 1.0  # >= 0; paper
    class_weight: float = 1.0  # >= 0, on T^2 KL; authors' code, CIFAR-100 (birds: 3)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = batch.student.logits
        other = batch.views["same_class"].students[0].logits
        ce = label_loss(batch.task, logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "class": self.class_weight * soft_kl(logits, other, self.temperature),
        }
