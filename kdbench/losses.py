"""What losses of every family are made of: precision, and the softened divergence."""

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def soft_kl(
    student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """T^2 KL(teacher || student) of the softened classes, in nats: a scalar.

    T^2 mean_b sum_c p_t(c) [log p_t(c) - log p_s(c)] with p = softmax(z / T), from
    (B, C) logits (Hinton et al. 2015, arXiv:1503.02531, section 2). The teacher is a
    constant.
    """
    log_student = F.log_softmax(at_least_float32(student) / temperature, dim=1)
    log_teacher = F.log_softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    kl = (log_teacher.exp() * (log_teacher - log_student)).sum() / len(student)
    return kl * temperature**2
