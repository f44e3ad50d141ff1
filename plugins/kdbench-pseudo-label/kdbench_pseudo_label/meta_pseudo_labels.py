"""Meta pseudo labels. Pham et al. 2021, arXiv:2003.10580, section 2, equation 12.

Student 0 learns from the labels of student 1, its teacher (of the same kind, from its
own start; the pair's teacher is not used), and that learns from what they do. A step:
y_u ~ softmax(t(x_u)), drawn, for the strong view x_u of the unlabelled items
student: loss = mean_u CE(s(x_u), y_u)
  h = mean_l CE(s(x_l), y) before - after its step, less the moving average of that
teacher: loss = ce_weight * mean_l CE(t(x_l), y)
  + meta_weight * h * mean_u CE(t(x_u), y_u)
  + uda_weight * ramp_up * mean_u 1[max_c q >= threshold] CE(t(x_u), q), where
  q = softmax(t(clean x_u) / uda_temperature), a constant (UDA, arXiv:1904.12848)

Before - after is the dot product of equation 12 to first order, learning rate included.
The authors' code takes after - before, and soft labels, for which the term of h has no
gradient; moving average and UDA's settings are its. h is 0 where no item is labelled.
Finally student 0 learns from labels only for `finetune_share` of the epochs (paper: for
1,000 steps more). Both have the recipe's learning rate (paper: each its own).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from kdbench import Batch, Context, Strategy, at_least_float32
from kdbench_pseudo_label.semi_supervised import masked_mean, ramp_up, refuse_bad_shares


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A class for each item of (B, C) logits, by its probability: (B,)."""
    # The arg-max of p / e is drawn from p where e is exponential.
    noise = torch.empty(logits.shape).exponential_(generator=generator).log()
    return (at_least_float32(logits.detach()) - noise.to(logits.device)).argmax(dim=1)


def cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    """Of (B, C) logits to (B,) classes or (B, C) probabilities, in nats: (B,)."""
    return F.cross_entropy(at_least_float32(logits), target, reduction="none")


@dataclass(frozen=True, kw_only=True)
class MetaPseudoLabels(Strategy):
    """A teacher that learns from what its pseudo-labels do to the student."""

    name = "meta_pseudo_labels"
    family = "pseudo-label"
    paper = "Pham et al. 2021, arXiv:2003.10580"
    students = 2
    teachers = 0
    views = ("strong",)

    label_fraction: float = 0.1  # share of the labels used, (0, 1); our benchmark's
    ce_weight: float = 1.0  # >= 0, teacher, on labelled items; paper
    meta_weight: float = 1.0  # >= 0, teacher, on the student's feedback; paper
    uda_weight: float = 1.0  # >= 0, teacher, on unlabelled items; authors' code
    uda_temperature: float = 0.75  # dimensionless, > 0; authors' code
    threshold: float = 0.6  # probability that UDA asks for, [0, 1]; authors' code
    ramp: float = 0.01  # share of training, of UDA, [0, 1]; authors' 10,000 steps
    memory: float = 0.99  # of the moving average, [0, 1]; authors' code
    finetune_share: float = 0.005  # of the epochs, at the end, [0, 1]; ours

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = ("threshold", "ramp", "memory", "finetune_share")
        refuse_bad_shares(self, "label_fraction", *shares)
        if self.label_fraction == 1:
            raise ValueError("label_fraction must be < 1: pseudo-labels need the rest")

    def train(self, context: Context) -> nn.Module:
        student, teacher = context.students
        of_student = context.optimiser(student.parameters())
        of_teacher = context.optimiser(teacher.parameters())
        finetuned = math.ceil(self.finetune_share * context.recipe.epochs)
        alone = context.recipe.epochs - finetuned
        for epoch in context.epochs():
            student.train()
            teacher.train()
            average: Tensor | float = context.state.get("average", 0.0)
            for batch in context.batches():
                if epoch >= alone:
                    each = cross_entropies(student(batch.inputs), batch.targets)
                    finetune = masked_mean(each, batch.labelled)
                    learn(context, of_student, {"finetune": finetune})
                    continue
                strong = batch.views["strong"].inputs
                seen = torch.cat((batch.inputs, strong))
                clean_z, strong_z = teacher(seen).chunk(2)
                pseudo = drawn(strong_z, batch.generator)
                gain = self.teach(context, of_student, batch, pseudo)
                gain = torch.where(batch.labelled.any(), gain, average)
                average = average + (1 - self.memory) * (gain - average)
                h = gain - average
                terms = self.teacher_terms(batch, clean_z, strong_z, pseudo, h)
                learn(context, of_teacher, terms)
            context.state["average"] = float(average)  # read once, at the end
        return student

    def teach(
        self, context: Context, optimiser: Optimizer, batch: Batch, pseudo: Tensor
    ) -> Tensor:
        """The student's step on (B,) pseudo-labels, and how much it gained: a scalar.

        Its batch norm sees the same items before and after: clean ones with labels,
        strong views of the others.
        """
        student, strong = context.students[0], batch.views["strong"].inputs
        clean = batch.labelled.reshape(-1, *[1] * (strong.ndim - 1))
        inputs = torch.where(clean, batch.inputs, strong)
        logits = student(inputs)
        taught = masked_mean(cross_entropies(logits, pseudo), ~batch.labelled)
        learn(context, optimiser, {"student": taught})
        with torch.no_grad():
            before = cross_entropies(logits, batch.targets)
            after = cross_entropies(student(inputs), batch.targets)
        return masked_mean(before - after, batch.labelled)

    def teacher_terms(
        self, batch: Batch, clean: Tensor, strong: Tensor, pseudo: Tensor, h: Tensor
    ) -> dict[str, Tensor]:
        """The teacher's loss, of its (B, C) logits, (B,) labels and their feedback."""
        q = (at_least_float32(clean.detach()) / self.uda_temperature).softmax(dim=1)
        uda = cross_entropies(strong, q) * (q.amax(dim=1) >= self.threshold)
        uda_weight = self.uda_weight * ramp_up(self.ramp, batch.progress)
        ce = masked_mean(cross_entropies(clean, batch.targets), batch.labelled)
        own = masked_mean(cross_entropies(strong, pseudo), ~batch.labelled)
        return {
            "ce": self.ce_weight * ce,
            "meta": self.meta_weight * h * own,
            "uda": uda_weight * masked_mean(uda, ~batch.labelled),
        }


def learn(context: Context, optimiser: Optimizer, terms: dict[str, Tensor]) -> None:
    """One update on the sum of the terms, which are logged."""
    for name, term in terms.items():
        context.log(name, term.detach())
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    optimiser.step()
