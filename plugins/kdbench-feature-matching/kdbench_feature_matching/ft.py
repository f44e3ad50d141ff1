"""Factor transfer. Kim et al. 2018, NeurIPS, arXiv:1802.04977, section 3.

first, "paraphraser":  loss = mean (D(P(f_t)) - f_t)^2, for P and D alone
then:  loss = ce_weight * CE + ft_weight * mean |unit(T(f_s)) - unit(P(f_t))|

f is the last stage; paraphraser P, decoder D and translator T are three layers each:
3x3 convolution (dense for vectors), batch norm, leaky ReLU 0.1. P and T end in
factor_rate times the teacher's channels. unit() scales an item's flattened factor to
length 1, where sizes differ after average-pooling the larger. P is frozen and in eval
mode in the second phase. Batch norm is the field's in T alone and not in the authors'
code; without it the first phase can diverge (rate 0.05, large f). The mean is that of
the authors' code, with a weight of 500 (CIFAR-10); the field's 200 is for factors that
are squared and averaged over channels. The authors' transposed convolutions of stride 1
(D) are convolutions, too.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import KINDS, Batch, Phase, Strategy, Tapped, at_least_float32, label_loss
from kdbench_feature_matching.geometry import shrink, unit
from kdbench_feature_matching.matching import stage_features, why_unlike


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the unit factors (B, ...) of two models: a scalar.

    Channels are equal, sizes may differ. The teacher is a constant.
    """
    s, t = student, teacher.detach()
    if s.ndim == 4:
        s, t = shrink(s, t.shape), shrink(t, s.shape)
    return F.l1_loss(unit(s.flatten(1), dim=1), unit(t.flatten(1), dim=1))


def three_layers(*widths: int, maps: bool) -> nn.Sequential:
    """(B, C, H, W) or (B, C) -> the same with the last of four widths for C."""
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        if maps:
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o)]
        else:
            layers += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o)]
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class FactorTransfer(Strategy):
    """Match the last stage as an autoencoder of the teacher's paraphrases it."""

    name = "ft"
    family = "feature matching"
    paper = "Kim et al. 2018, NeurIPS, arXiv:1802.04977"
    tasks = KINDS
    taps = ("stages",)

    factor_rate: float = 0.5  # factor channels / teacher channels, > 0; paper's k
    ce_weight: float = 1.0  # >= 0; paper
    ft_weight: float = 200.0  # >= 0, on the mean; the field's CIFAR-100 setting
    paraphraser_epochs: int = 30  # before the recipe's, >= 0; the field's setting

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factor_rate > 0:
            raise ValueError(f"factor_rate must be > 0, not {self.factor_rate}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        if teacher is None:
            return "there is no teacher"
        for model in (student, teacher):
            if not model.stages:
                return f"{model.name} has no stages"
        return why_unlike(
            student, [*student.stages][-1], teacher, [*teacher.stages][-1]
        )

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        *_, (s, *_) = student.stages.values()
        *_, (t, *size) = teacher.stages.values()
        f, maps = max(1, round(self.factor_rate * t)), bool(size)
        parts = {"paraphraser": (t, t, f, f), "decoder": (f, f, t, t)}
        parts["translator"] = (s, s, f, f)
        return nn.ModuleDict({k: three_layers(*w, maps=maps) for k, w in parts.items()})

    def phases(self) -> tuple[Phase, ...]:
        first, epochs = "paraphraser", self.paraphraser_epochs
        return (
            Phase(name=first, epochs=epochs, students=(), constant_lr=True),
            Phase(),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.adapters, nn.ModuleDict)  # noqa: S101 (built above)
        paraphraser, decoder, translator = batch.adapters.values()
        *_, of_teacher = stage_features(batch.teacher).values()
        of_teacher = at_least_float32(of_teacher.detach())
        batch.adapters.train(len(of_teacher) > 1)  # a lone vector has no spread
        if batch.phase == "paraphraser":
            rebuilt = decoder(paraphraser(of_teacher))
            return {"reconstruction": F.mse_loss(rebuilt, of_teacher)}
        with torch.no_grad():  # frozen: what has no gradient stays as it is
            factor = paraphraser.eval()(of_teacher)
        *_, of_student = stage_features(batch.student).values()
        distance = factor_loss(translator(at_least_float32(of_student)), factor)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "factor": self.ft_weight * distance}
