"""Pre-activations: how the student's are brought to the form of the teacher's.

They pair up as stages do. Heo et al. 2019 (arXiv:1811.03233 and 1904.01866) compare
them through connectors, 1x1 convolutions and batch norm, drawn from N(0, 2 / fan-out);
for vectors (D,) the convolution is a dense layer.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdbench import Outputs, Tapped, at_least_float32
from kdbench_feature_matching.geometry import shrink
from kdbench_feature_matching.matching import match_stages, why_unlike

T = TypeVar("T")
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def preacts(named: Mapping[str, T]) -> dict[str, T]:
    """Those of the named things that belong to pre-activations, in forward order."""
    return {name: thing for name, thing in named.items() if name.startswith("preact")}


def matched(student: Tapped, teacher: Tapped) -> list[tuple[str, str]]:
    """(student tap, teacher tap) names; ValueError where no rule matches them."""
    return match_stages(preacts(student.shapes), preacts(teacher.shapes))


def why_no_preacts(student: Tapped, teacher: Tapped | None) -> str | None:
    """For `supports`: a sentence unless every one of the student's has a partner."""
    if teacher is None:
        return "there is no teacher"
    for model in (student, teacher):
        if not preacts(model.shapes):
            return f"{model.name} has no pre-activations (preact1, preact2, ...)"
    try:
        pairs = matched(student, teacher)
    except ValueError as error:
        return str(error)
    reasons = (why_unlike(student, s, teacher, t) for s, t in pairs)
    return next(filter(None, reasons), None)


def norm_before(model: Tapped, tap: str) -> Norm | None:
    """The affine batch norm of a pre-activation, None where none has its channels.

    It is the tapped one, or the last in the tapped module or, where a module's input is
    tapped (that of a ReLU), in the block around that.
    """
    path = model.paths[tap]
    place = path.rpartition(".")[0] if path.endswith(":input") else path
    parts = model.model.get_submodule(place).modules()
    norms = [part for part in parts if isinstance(part, Norm)]
    found = norms[-1] if norms else None
    if found and found.affine and found.num_features == model.shapes[tap][0]:
        return found
    return None


class Connectors(nn.Module):
    """From the student's to the teacher's channels, for each pair of pre-activations.

    Where sizes differ, the larger side is average-pooled to the smaller one first.
    """

    def __init__(self, student: Tapped, teacher: Tapped) -> None:
        super().__init__()
        self.pairs = matched(student, teacher)
        self.connectors = nn.ModuleList()
        for s, t in self.pairs:
            (i, *size), (o, *_) = student.shapes[s], teacher.shapes[t]
            mix = (
                nn.Conv2d(i, o, 1, bias=False) if size else nn.Linear(i, o, bias=False)
            )
            nn.init.kaiming_normal_(mix.weight, mode="fan_out", nonlinearity="relu")
            norm = nn.BatchNorm2d(o) if size else nn.BatchNorm1d(o)
            self.connectors.append(nn.Sequential(mix, norm))

    def forward(
        self, student: Outputs, teacher: Outputs
    ) -> list[tuple[Tensor, Tensor]]:
        """Pairs (connected student, constant teacher), each of one shape."""
        found = []
        for (s, t), connect in zip(self.pairs, self.connectors, strict=True):
            own = at_least_float32(student.features[s])
            other = at_least_float32(teacher.features[t].detach())
            if own.ndim == 4:
                own, other = shrink(own, other.shape), shrink(other, own.shape)
            connect.train(len(own) > 1)  # a lone vector has no spread: the running one
            found.append((connect(own), other))
        return found


def halving(losses: Sequence[Tensor]) -> Tensor:
    """sum_l losses[l] / 2^(L - 1 - l): the last in full, each one before by half."""
    return torch.stack([x / 2**k for k, x in enumerate(reversed(losses))]).sum()
