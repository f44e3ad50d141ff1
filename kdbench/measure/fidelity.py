"""How alike student and teacher answer. Fidelity is not accuracy.

Stanton et al. 2021, arXiv:2106.05945. Without a teacher there is nothing to compare.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdbench.api import Finished, Measure
from kdbench.measure.heads import CLASSES, NUMBERS, beside_teacher
from kdbench.tasks import rmse


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Share of items on which both (N, C) have one largest logit, in percent.

    Stanton et al. 2021, arXiv:2106.05945, eq. 4.
    """
    return 100 * (student.argmax(1) == teacher.argmax(1)).double().mean().item()


def agreement_wrong(student: Tensor, teacher: Tensor, targets: Tensor) -> float:
    """The same, of the items that the teacher gets wrong; NaN where it errs nowhere."""
    wrong = teacher.argmax(1) != targets
    return agreement(student[wrong], teacher[wrong])


def kl(student: Tensor, teacher: Tensor) -> float:
    """Mean KL(teacher || student) over the items of (N, C) logits, in nats, at T = 1.

    sum_c p_c (log p_c - log q_c): the "average predictive KL" of Stanton et al. 2021.
    """
    theirs = teacher.double().softmax(1)
    apart = F.kl_div(student.double().log_softmax(1), theirs, reduction="none")
    apart = apart.where(theirs > 0, 0.0)  # 0 log 0 is 0, also of a class masked by both
    return apart.sum(1).mean().clamp_min(0).item()  # rounding may make it negative


def teacher_kl(finished: Finished) -> dict[str, float | None]:
    """Head -> KL; None where the outputs of one are no logits of probabilities."""
    known = finished.probabilities and finished.teacher_probabilities
    return beside_teacher(
        finished,
        "classification",
        lambda student, teacher, _: kl(student, teacher) if known else None,
    )


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of (N, D) and (N, E) features, from 0 to 1.

    ||Y'X||^2 / (||X'X|| ||Y'Y||), Frobenius norms of centred features. Kornblith et al.
    2019, arXiv:1905.00414. With more features than items the same number comes from
    the smaller Gram matrices XX' and YY'. NaN where features are constant.
    """
    x, y = (one.double() - one.double().mean(0) for one in (x, y))
    if max(x.shape[1], y.shape[1]) > len(x):
        x, y = x @ x.T, y @ y.T
        return float((x * y).sum() / (x.norm() * y.norm()))
    norms = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).square().sum() / norms)


def cka(finished: Finished) -> float | None:
    """Linear CKA of what the classifiers of student and teacher are handed."""
    found = finished.features() if finished.features is not None else None
    return None if found is None else linear_cka(*found)


FIDELITY = [
    Measure(
        name="agreement",
        summary="test items on which student and teacher say the same class",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=lambda finished: beside_teacher(
            finished, "classification", lambda ours, theirs, _: agreement(ours, theirs)
        ),
    ),
    Measure(
        name="agreement_wrong",
        summary="agreement on the test items that the teacher gets wrong",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=lambda finished: beside_teacher(
            finished, "classification", agreement_wrong
        ),
    ),
    Measure(
        name="teacher_kl",
        summary="mean KL divergence from the teacher's probabilities to the student's",
        unit="nats",
        better="lower",
        tasks=CLASSES,
        compute=teacher_kl,
    ),
    Measure(
        name="teacher_rmse",
        summary="root mean square difference to the teacher's answers",
        unit="target",
        better="lower",
        tasks=NUMBERS,
        compute=lambda finished: beside_teacher(
            finished, "regression", lambda ours, theirs, _: rmse(ours, theirs)
        ),
    ),
    Measure(
        name="cka",
        summary="linear CKA of student's and teacher's features before the classifier",
        unit="",
        better="higher",
        optional=True,
        compute=cka,
    ),
]
