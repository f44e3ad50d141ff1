"""Hard pseudo-labels. Lee 2013, ICML Workshop on Challenges in Representation Learning,
equation 14, with the labels given by a teacher (in the paper by the network itself).

loss = ce_weight * CE(z_s, y) + pseudo_weight * CE(z_s, argmax_c z_t)

In a regression the pseudo-label is the teacher's number, and CE the squared error.
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Task, label_loss, label_target


def pseudo_labels(task: Task, teacher: Tensor) -> Tensor:
    """What the teacher calls the items: (B,) its arg-max, or (B, K) its numbers."""
    return teacher.argmax(dim=1) if task.kind == "classification" else teacher.detach()


@dataclass(frozen=True, kw_only=True)
class HardPseudoLabel(Strategy):
    """Train on the teacher's arg-max instead of the labels."""

    name = "hard_pseudo_label"
    family = "pseudo-label"
    paper = "Lee 2013, ICML Workshop on Challenges in Representation Learning"
    tasks = KINDS
    needs_probabilities = False

    ce_weight: float = 0.0  # >= 0, on the true labels; the seed articles use none
    pseudo_weight: float = 1.0  # >= 0, on the teacher's labels; the seed articles

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        task, student = batch.task, batch.student.logits
        pseudo = label_loss(task, student, pseudo_labels(task, batch.teacher.logits))
        terms = {"pseudo": self.pseudo_weight * pseudo}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * label_loss(task, student, batch.targets)
        return terms

    def target(self, batch: Batch) -> Tensor:
        total = self.ce_weight + self.pseudo_weight
        if total == 0:
            raise ValueError("both weights are 0: there is nothing to learn")
        task = batch.task
        pseudo = label_target(task, pseudo_labels(task, batch.teacher.logits))
        label = label_target(task, batch.targets)
        return (self.ce_weight * label + self.pseudo_weight * pseudo) / total
