"""The true class of each item and the other classes, told apart in the logits."""

import torch
from torch import Tensor


def without(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, C) logits whose softmax leaves out the true class, of `targets` (B,)."""
    true_class = targets[:, None] == torch.arange(logits.shape[1], device=logits.device)
    # Finite, so that 0 * (hidden - hidden) is 0 and not nan.
    return logits.masked_fill(true_class, torch.finfo(logits.dtype).min / 2)


def apart(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of (true class, rest) (B, 2) and within the rest (B, C)."""
    true, rest = logits.gather(1, targets[:, None]), without(logits, targets)
    # p_true / p_rest = exp(z_true) / sum exp(z_rest): a softmax over two logits.
    return torch.cat((true, rest.logsumexp(dim=1, keepdim=True)), dim=1), rest
