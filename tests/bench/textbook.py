"""Eleven losses as the field's repositories write them: straight from the papers.

Written from the papers' formulas in the shape that RepDistiller (Tian et al. 2020),
mdistiller (Zhao et al. 2022) and Knowledge-Distillation-Zoo give them, batched wherever
those are. The weights are theirs, too. Papers and definitions: docs/strategies.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-7


class Answers(NamedTuple):
    """What a model says of a batch: stages (B, C, H, W), pooled (B, D), logits."""

    stages: Sequence[Tensor]
    pooled: Tensor | None
    logits: Tensor


class Asked(NamedTuple):
    """A batch's (B,) targets; for crd also the memories to compare: (B, 1 + K)."""

    targets: Tensor
    memories: Tensor | None = None


class Loss(nn.Module):
    """A method; `forward(student, teacher, asked)` is the scalar to minimise."""

    def __init__(self, student: Answers, teacher: Answers, items: int, **params: float):
        """Sizes are read from an example of either side's answers."""
        super().__init__()
        self.build(student, teacher, items, **params)

    def build(self, student: Answers, teacher: Answers, items: int) -> None:
        """Learned parts, where there are any."""

    def forward(self, student: Answers, teacher: Answers, asked: Asked) -> Tensor:
        ce = F.cross_entropy(student.logits, asked.targets)
        return ce + self.distance(student, teacher)

    def distance(self, student: Answers, teacher: Answers) -> Tensor:
        raise NotImplementedError


class KD(Loss):
    def build(
        self, student, teacher, items, temperature=4.0, ce_weight=0.1, kd_weight=0.9
    ):
        self.temperature = temperature
        self.ce_weight = ce_weight
        self.kd_weight = kd_weight

    def forward(self, student, teacher, asked):
        ce = F.cross_entropy(student.logits, asked.targets)
        log_p_student = F.log_softmax(student.logits / self.temperature, dim=1)
        p_teacher = F.softmax(teacher.logits / self.temperature, dim=1)
        kl = F.kl_div(log_p_student, p_teacher, reduction="batchmean")
        return self.ce_weight * ce + self.kd_weight * self.temperature**2 * kl


class FitNet(Loss):
    def build(self, student, teacher, items):
        own, wide = student.stages[1].shape[1], teacher.stages[1].shape[1]
        self.regressor = nn.Sequential(
            nn.Conv2d(own, wide, 1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)
        )

    def distance(self, student, teacher):
        return 100 * F.mse_loss(self.regressor(student.stages[1]), teacher.stages[1])


class AT(Loss):
    def distance(self, student, teacher):
        def attention(maps):
            return F.normalize(maps.pow(2).mean(1).flatten(1))

        return 1000 * sum(
            (attention(s) - attention(t)).pow(2).mean()
            for s, t in zip(student.stages, teacher.stages, strict=True)
        )


class SP(Loss):
    def distance(self, student, teacher):
        def similarity(maps):
            rows = maps.flatten(1)
            return F.normalize(rows @ rows.t())

        s, t = student.stages[-1], teacher.stages[-1]
        return 3000 * (similarity(t) - similarity(s)).pow(2).sum() / len(s) ** 2


class CC(Loss):
    """The kernel's series to order 2, gamma 0.4 (Knowledge-Distillation-Zoo)."""

    def distance(self, student, teacher):
        def correlation(vectors):
            unit = F.normalize(vectors)
            cosine = unit @ unit.t()
            series = sum((0.8 * cosine) ** p / math.factorial(p) for p in range(3))
            return math.exp(-0.8) * series

        return 100 * F.mse_loss(
            correlation(student.pooled), correlation(teacher.pooled)
        )


class VID(Loss):
    def build(self, student, teacher, items):
        self.means, self.spreads = nn.ModuleList(), nn.ParameterList()
        for s, t in zip(student.stages, teacher.stages, strict=True):
            own, wide = s.shape[1], t.shape[1]
            self.means.append(
                nn.Sequential(
                    nn.Conv2d(own, wide, 1, bias=False),
                    nn.ReLU(),
                    nn.Conv2d(wide, wide, 1, bias=False),
                    nn.ReLU(),
                    nn.Conv2d(wide, wide, 1, bias=False),
                )
            )
            start = math.log(math.exp(5.0 - 1e-5) - 1)
            self.spreads.append(nn.Parameter(torch.full((wide,), start)))

    def distance(self, student, teacher):
        total = 0
        for s, t, mean, spread in zip(
            student.stages, teacher.stages, self.means, self.spreads, strict=True
        ):
            variance = (F.softplus(spread) + 1e-5).view(1, -1, 1, 1)
            total += (0.5 * ((mean(s) - t) ** 2 / variance + variance.log())).mean()
        return total


class RKD(Loss):
    def distance(self, student, teacher):
        def distances(e):
            square = e.pow(2).sum(1)
            squares = square[:, None] + square[None] - 2 * e @ e.t()
            apart = squares.clamp(min=1e-12).sqrt() * (1 - torch.eye(len(e)))
            return apart / apart[apart > 0].mean()

        def angles(e):
            direction = F.normalize(e[None] - e[:, None], dim=2)
            return torch.bmm(direction, direction.transpose(1, 2)).flatten()

        with torch.no_grad():
            far, turned = distances(teacher.pooled), angles(teacher.pooled)
        return 25 * F.smooth_l1_loss(distances(student.pooled), far) + (
            50 * F.smooth_l1_loss(angles(student.pooled), turned)
        )


class PKT(Loss):
    def distance(self, student, teacher):
        def neighbours(e):
            unit = e / (e.pow(2).sum(1, keepdim=True).sqrt() + EPS)
            kernel = (unit @ unit.t() + 1) / 2
            return kernel / kernel.sum(1, keepdim=True)

        s, t = neighbours(student.pooled), neighbours(teacher.pooled)
        return 30000 * (t * ((t + EPS) / (s + EPS)).log()).mean()


class NST(Loss):
    """Every channel against every other one: (B, C, C', H * W) products."""

    def distance(self, student, teacher):
        def kernel(x, y):
            return (x[:, None] * y[:, :, None]).sum(-1).pow(2).mean()

        total = 0
        for s, t in zip(student.stages, teacher.stages, strict=True):
            x = F.normalize(s.flatten(2), dim=2)
            y = F.normalize(t.flatten(2), dim=2)
            total += kernel(y, y) + kernel(x, x) - 2 * kernel(x, y)
        return 50 * total


def singular_vectors(maps: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of (B, H * W, C): the k largest values (B, k), and right vectors (B, C, k)."""
    rows = maps.flatten(2).transpose(1, 2)
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    return F.normalize(values[:, :k], dim=1), vectors.transpose(1, 2)[:, :, :k]


class KDSVD(Loss):
    """One singular vector; the student's is the nearest of four. Needs equal C."""

    def distance(self, student, teacher):
        def relation(vectors, before):
            return (-(vectors[:, :, None] - before[:, None]).pow(2) / 8).exp()

        total, before = 0, None
        for s, t in zip(student.stages, teacher.stages, strict=True):
            with torch.no_grad():
                scale, wanted = singular_vectors(t, 1)
            _, found = singular_vectors(s, 4)
            cosine = found.transpose(1, 2) @ wanted  # (B, 4, 1)
            nearest = cosine.abs() == cosine.abs().amax(1, keepdim=True)
            own = found @ (nearest * cosine.sign()) * scale[:, None]
            wanted = wanted * scale[:, None]
            if before is not None:
                apart = relation(own, before[0]) - relation(wanted, before[1])
                total += apart.pow(2).sum() / len(s)
            before = own, wanted
        return total


class CRD(Loss):
    """Two memories of all items; K rows of either are gathered for each item."""

    def build(self, student, teacher, items, dim=128):
        self.items = items
        self.embed_student = nn.Linear(student.pooled.shape[1], dim)
        self.embed_teacher = nn.Linear(teacher.pooled.shape[1], dim)
        start = 1 / math.sqrt(dim / 3)
        for name in ("of_student", "of_teacher"):
            rows = torch.empty(items, dim).uniform_(-start, start)
            self.register_buffer(name, rows)
        self.z = [None, None]

    def forward(self, student, teacher, asked):
        ce = F.cross_entropy(student.logits, asked.targets)
        s = F.normalize(self.embed_student(student.pooled))
        t = F.normalize(self.embed_teacher(teacher.pooled))
        losses = [
            self.contrast(0, s, self.of_teacher, asked.memories),
            self.contrast(1, t, self.of_student, asked.memories),
        ]
        with torch.no_grad():
            own = asked.memories[:, 0]
            for rows, e in ((self.of_student, s), (self.of_teacher, t)):
                new = 0.5 * rows.index_select(0, own) + 0.5 * e
                rows.index_copy_(0, own, F.normalize(new))
        return ce + 0.8 * sum(losses)

    def contrast(self, side, e, rows, memories):
        batch, seen = memories.shape
        gathered = rows.index_select(0, memories.view(-1)).view(batch, seen, -1)
        p = torch.exp(torch.bmm(gathered, e[:, :, None])[:, :, 0] / 0.07)
        if self.z[side] is None:
            self.z[side] = p.detach().mean() * self.items
        p = p / self.z[side]
        noise = (seen - 1) / self.items
        positive = (p[:, 0] / (p[:, 0] + noise + EPS)).log().sum()
        negative = (noise / (p[:, 1:] + noise + EPS)).log().sum()
        return -(positive + negative) / batch


LOSSES: dict[str, type[Loss]] = {
    "kd": KD,
    "fitnet": FitNet,
    "at": AT,
    "sp": SP,
    "cc": CC,
    "vid": VID,
    "rkd": RKD,
    "pkt": PKT,
    "nst": NST,
    "kdsvd": KDSVD,
    "crd": CRD,
}
