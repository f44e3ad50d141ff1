"""Born-again networks. Furlanello et al. 2018, arXiv:1805.04770, equations 2-4.

The first generation learns from the pair's teacher, each next one from the one before:
loss = kd_weight * KL(softmax(z_t) || softmax(z_s)) + ce_weight * CE(z_s, y)

KL has the gradient of the paper's cross-entropy. The paper trains without labels
(ce_weight 0; 1 is its "BAN+L"), and its teacher is of the students' kind. The last
generation is deployed, or with `ensemble` the mean of all generations' probabilities
(equation 4), K times as large, with models in it that are not trained before the last
phase ends. CWTM and DKPP, which take the teacher's knowledge apart, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kdbench import Batch, Phase, Strategy, label_loss, soft_kl
from kdbench_mutual_learning.ensembles import MeanProbability
from kdbench_mutual_learning.ranges import refuse_fewer_than


@dataclass(frozen=True, kw_only=True)
class BornAgain(Strategy):
    """Generations of one architecture, each taught by the one before."""

    name = "born_again"
    family = "mutual learning"
    paper = "Furlanello et al. 2018, arXiv:1805.04770"

    students: int = 3  # generations, >= 1; paper
    ensemble: bool = False  # deploy all generations, not the last; paper has both
    ce_weight: float = 0.0  # >= 0; paper, table 2 (BAN+L: 1)
    kd_weight: float = 1.0  # >= 0, on KL at temperature 1; paper

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(1, self, "students")

    def phases(self) -> tuple[Phase, ...]:
        first, made = self.students - 1, list[Phase]()
        for k in range(first, -1, -1):
            name = f"generation {self.students - k}" if k else ""
            teachers, peers = ((0,), ()) if k == first else ((), (k + 1,))
            made.append(Phase(name=name, students=(k,), teachers=teachers, peers=peers))
        return tuple(made)

    def deployed(
        self, students: Sequence[nn.Module], adapters: nn.Module | None
    ) -> nn.Module:
        last = super().deployed(students, adapters)
        return MeanProbability(students) if self.ensemble else last

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, targets = batch.student.logits, batch.targets
        terms = {"kd": self.kd_weight * soft_kl(student, batch.teacher.logits)}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * label_loss(batch.task, student, targets)
        return terms
