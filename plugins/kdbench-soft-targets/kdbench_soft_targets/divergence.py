"""The softened KL divergence, the piece that this family shares.

Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2:
T^2 mean_b sum_c p_t(c) [log p_t(c) - log p_s(c)] with p = softmax(z / T).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def soft_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened classes, times T^2, in nats.

    `student` and `teacher` are (B, C) logits; the result is a scalar, the sum over
    classes and mean over the batch. The teacher is a constant.
    """
    log_student = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    log_teacher = F.log_softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    kl = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return kl * temperature**2
