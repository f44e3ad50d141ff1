"""Teacher assistant. Mirzadeh et al. 2020, arXiv:1902.03393, equations 1-3.

First the pair's assistant, a model between the two in size, learns from the teacher;
then the student learns from the assistant, frozen. The loss of both, after teacher t:
loss = ce_weight * CE(z_s, y) + kd_weight * T^2 KL(softmax(z_t / T) || softmax(z_s / T))

The paper has weights 1 - lambda and lambda and finds lambda and T by search for each
experiment; its code searches lambda in 0.05 ... 1 and T in 1 ... 20, and takes the mean
of the KL over classes too. Here they are kd's, and the same for both. One assistant of
the paper's longer chains is supported. Each phase lasts as long as the recipe.

In a regression the teacher's number is the soft target and both terms are mean squared
errors, as in kd.
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import KINDS, Batch, Phase, Strategy, label_loss, soft_kl


@dataclass(frozen=True, kw_only=True)
class TeacherAssistant(Strategy):
    """The teacher teaches an assistant, and that one the student."""

    name = "takd"
    family = "mutual learning"
    paper = "Mirzadeh et al. 2020, arXiv:1902.03393"
    tasks = KINDS
    assistants = 1

    temperature: float = 4.0  # dimensionless, > 0; kd's (paper: searched)
    ce_weight: float = 0.1  # >= 0; kd's (paper: searched)
    kd_weight: float = 0.9  # >= 0, on T^2 KL; kd's (paper: searched)

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="assistant", students=(1,), teachers=(0,)),
            Phase(students=(0,), teachers=(), peers=(1,)),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        if batch.task.kind == "regression":
            kd = label_loss(batch.task, student, teacher.detach())
        else:
            kd = soft_kl(student, teacher, self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * kd,
        }
