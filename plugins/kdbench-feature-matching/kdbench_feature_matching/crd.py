"""Contrastive representation distillation. Tian et al. 2020, arXiv:1910.10699,
equations 15 to 19.

e = unit(W f + b), of either side's pooled f; m = an item's past e of the other side
P = exp(<e, m> / temperature) / Z;  n = K / N
NCE = -mean_b [log P / (P + n + EPS), of the positive
               + sum of log n / (P + n + EPS) over K negatives]
loss = ce_weight * CE + crd_weight * (NCE of e_s to m_t + NCE of e_t to m_s)

The positive is the item's own memory, negatives are items of other classes, N all items
of the training set. Z is N times the first batch's mean of exp(), as in the authors'
code. Afterwards m becomes unit(momentum * m + (1 - momentum) * e). Chosen here: the
negatives are independent draws, as the noise of NCE is (the authors draw without
replacement where they can), and memories start as random unit vectors (theirs as
uniform ones, of length 1 in the mean).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import unit

EPS = 1e-7

FEW = 16
"""Of so many times more items, the rows that were drawn are looked up one by one."""


class Lookup(torch.autograd.Function):
    """<q_b, memory[k]> (B, M) of the rows k in `seen` (B, M), which are never copied.

    The gradient is that of q (B, dim); the memory (N, dim) has none. A weighted sum of
    rows is one embedding bag, and the products are the gradient of its weights.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        ctx.save_for_backward(memory, seen)
        with torch.enable_grad():
            weights = q.new_zeros(seen.shape, requires_grad=True)
            total = F.embedding_bag(
                seen, memory, per_sample_weights=weights, mode="sum"
            )
            (products,) = torch.autograd.grad(total, weights, q)
        return products

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        memory, seen = ctx.saved_tensors
        q = F.embedding_bag(seen, memory, per_sample_weights=gradient, mode="sum")
        return q, None, None


def nce_loss(log_ratio: Tensor, own: Tensor, counts: Tensor | float) -> Tensor:
    """NCE (2,) of both sides' log [P / (n + EPS)] (2, B, M), in nats, for EPS << n.

    `own` (B, 1) is the place of each one's positive; `counts` (B, M) how often an item
    stands for the positive or a negative. The logarithms of the formula are
    -softplus(ratio) of a negative, ratio - softplus(ratio) of the positive: exact also
    where P is next to nothing or n is.
    """
    above = counts * F.softplus(log_ratio, threshold=50)
    positive = log_ratio.gather(2, own.expand(2, *own.shape))
    return (above.sum(dim=2, keepdim=True) - positive).mean(dim=(1, 2))


def with_gradient_now(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), a scalar; its gradient does not depend on what is changed later."""
    leaf = x.detach().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach() + ((x - leaf.detach()) * gradient).sum()


class Memory(nn.Module):
    """Both sides' embeddings, and what they were when each item was last seen."""

    past: Tensor  # (2, N, dim): the student's, the teacher's
    log_z: Tensor  # (2,): of student's e and teacher's; -inf until set
    by_class: Tensor  # (N,): items, sorted by class
    count: Tensor  # (C,): items of each class

    def __init__(
        self, widths: tuple[int, int], targets: Tensor, classes: int, dim: int
    ):
        super().__init__()
        self.embeds = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        past = unit(torch.randn(2, len(targets), dim), dim=2)
        self.register_buffer("past", past)
        self.register_buffer("log_z", torch.full((2,), -math.inf))
        self.register_buffer("by_class", targets.argsort(stable=True))
        self.register_buffer("count", torch.bincount(targets, minlength=classes))

    def negatives(self, targets: Tensor, draws: int, random: torch.Generator) -> Tensor:
        """Items of other classes than `targets` (B,), drawn evenly: (B, draws)."""
        own = self.count[targets][:, None]
        first = (self.count.cumsum(0) - self.count)[targets][:, None]
        shares = torch.rand(len(own), draws, generator=random, dtype=torch.float64)
        place = (shares.to(own.device) * (len(self.by_class) - own)).long()
        return self.by_class[place + own * (place >= first)]

    def forward(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """Embeddings (2, B, dim) of unit length of the two sides' (B, D)."""
        dtype = self.past.dtype
        pairs = zip(self.embeds, features, strict=True)
        return unit(torch.stack([embed(f.to(dtype)) for embed, f in pairs]), dim=2)

    def contrast(self, e: Tensor, seen: Tensor, temperature: float) -> Tensor:
        """Both NCEs (2,) of (2, B, dim) to the items `seen` (B, 1 + K); may set Z."""
        items, noise = len(self.by_class), (seen.shape[1] - 1) / len(self.by_class)
        # The e of the teacher is first, as it meets the student's past.
        q = e.flip(0) / temperature
        counts, own = q.new_ones(()), torch.zeros_like(seen[:, :1])
        if seen.shape[1] > items:  # every item once, and how often it was drawn
            scores, own = q @ self.past.mT, seen[:, :1]  # (2, B, N)
            counts = scores.new_zeros(scores.shape[1:])
            counts.scatter_add_(1, seen, scores.new_ones(seen.shape))
        elif seen.shape[1] * FEW > items:
            scores = (q @ self.past.mT).gather(2, seen.expand(2, *seen.shape))
        else:
            sides = zip(q, self.past, strict=True)
            rows = [Lookup.apply(*s, seen) for s in sides]  # type: ignore[no-untyped-call]
            scores = torch.stack(rows)
        # A GPU is not asked whether Z is set: the program would have to wait for it.
        if self.log_z.device.type != "cpu" or self.log_z.isneginf().any():
            start = (scores.detach() + counts.log()).logsumexp((1, 2)).flip(0)
            start = start - math.log(seen.numel() / items)
            self.log_z.copy_(torch.where(self.log_z.isneginf(), start, self.log_z))
        log_n = self.log_z.flip(0) + math.log(noise + EPS)
        losses = nce_loss(scores - log_n[:, None, None], own, counts)
        return losses.flip(0) + (seen.shape[1] - 1) * math.log1p(EPS / noise)

    @torch.no_grad()
    def remember(self, e: Tensor, index: Tensor, momentum: float) -> None:
        """Move the memories of items (B,) towards their embeddings (2, B, dim)."""
        past = momentum * self.past[:, index] + (1 - momentum) * e
        self.past[:, index] = unit(past, dim=2)


@dataclass(frozen=True, kw_only=True)
class ContrastiveDistillation(Strategy):
    """Tell the teacher's embedding of the same item from those of other classes."""

    name = "crd"
    family = "feature matching"
    paper = "Tian et al. 2020, arXiv:1910.10699"
    taps = ("pooled",)

    negatives: int = 16384  # K, draws per item, >= 1; authors' code
    temperature: float = 0.07  # dimensionless, > 0; authors' code
    momentum: float = 0.5  # share of the old memory, in [0, 1); authors' code
    dim: int = 128  # width of the embeddings, >= 1; authors' code
    ce_weight: float = 1.0  # >= 0; authors' code
    crd_weight: float = 0.8  # >= 0, on the sum of both sides; authors' code

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("negatives", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        assert student.targets is not None  # noqa: S101 (a pair that is trained)
        widths = student.shapes["pooled"][0], teacher.shapes["pooled"][0]
        classes = student.shapes["logits"][0]
        return Memory(widths, student.targets, classes, self.dim)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        memory = batch.adapters
        assert isinstance(memory, Memory)  # noqa: S101 (built by adapters() above)
        student, teacher = batch.student.features, batch.teacher.features
        e = memory((student["pooled"], teacher["pooled"].detach()))
        others = memory.negatives(batch.targets, self.negatives, batch.generator)
        seen = torch.cat((batch.index[:, None], others), dim=1)
        # Without a copy of the memory: `remember` writes to what a gradient is made of.
        contrast = with_gradient_now(
            lambda e: memory.contrast(e, seen, self.temperature).sum(), e
        )
        memory.remember(e, batch.index, self.momentum)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "contrast": self.crd_weight * contrast}
