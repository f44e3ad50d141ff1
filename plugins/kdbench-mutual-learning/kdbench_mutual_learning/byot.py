"""Be your own teacher. Zhang et al. 2019, ICCV, arXiv:1905.08094, section 3.

Each stage s but the last gets a bottleneck b_s and a linear classifier of its own; they
learn from the labels and from the deepest classifier, and are dropped afterwards.
loss = ce_weight * CE(z, y) + sum_s [shallow_ce_weight * CE(z_s, y)
     + kd_weight * T^2 KL(p || p_s) + feature_weight * ||b_s - f||]
p = softmax(z / T); z and f, the student's logits and pooled features, are constants in
the last two terms; the norm is over the whole batch.

The paper weighs by 1 - a, a and lambda, and squares the norm. The authors' code has
a = 0.3 and T = 3 without T^2; our T^2 stays, and the default weight is a / 9. Their
commit eda2f2b has a feature term with 0.03 and a norm that is not squared, as here and
in mmrazor (squared, it drowns the rest where f is wide), their 317b7e5 has none.
What the paper leaves open, we chose: a bottleneck is a 1x1 convolution to a quarter of
f's width, a strided one to the last stage's size and a 1x1 one to f's width, each with
batch norm and ReLU, then the mean over space; of vectors a linear layer and ReLU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, at_least_float32, label_loss, soft_kl


class Norm(nn.BatchNorm2d):
    """Batch norm of a single 1x1 item, which has no spread, by the running values."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps.numel() > maps.shape[1]:
            return super().forward(maps)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(maps, mean, var, self.weight, self.bias, eps=self.eps)


class Exits(nn.Module):
    """Features (B, width) and logits (B, classes) of each stage but the last."""

    def __init__(
        self, stages: Sequence[tuple[int, ...]], width: int, classes: int
    ) -> None:
        super().__init__()
        *shallow, last = stages
        self.bottlenecks = nn.ModuleList(bottleneck(s, last, width) for s in shallow)
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for _ in shallow)

    def forward(self, shallow: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self.bottlenecks, shallow, strict=True)
        features = [bottleneck(at_least_float32(stage)) for bottleneck, stage in pairs]
        pairs = zip(self.classifiers, features, strict=True)
        return [(feature, classifier(feature)) for classifier, feature in pairs]


def bottleneck(stage: tuple[int, ...], last: tuple[int, ...], width: int) -> nn.Module:
    """From a stage's (B, C, H, W) or (B, D) to (B, width)."""
    if len(stage) == 1:
        return nn.Sequential(nn.Linear(stage[0], width), nn.ReLU())
    inner = max(1, width // 4)
    patch = (max(1, stage[1] // last[1]), max(1, stage[2] // last[2]))
    layers: list[nn.Module] = []
    for inputs, outputs, size in (
        (stage[0], inner, (1, 1)),
        (inner, inner, patch),
        (inner, width, (1, 1)),
    ):
        convolution = nn.Conv2d(inputs, outputs, size, stride=size, bias=False)
        layers += [convolution, Norm(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@dataclass(frozen=True, kw_only=True)
class BeYourOwnTeacher(Strategy):
    """Shallow exits learn from the student's own deepest classifier."""

    name = "byot"
    family = "mutual learning"
    paper = "Zhang et al. 2019, arXiv:1905.08094"
    taps = ("stages", "pooled")
    teachers = 0

    temperature: float = 3.0  # dimensionless, > 0; authors' code
    ce_weight: float = 1.0  # >= 0, on the deepest CE; paper
    shallow_ce_weight: float = 0.7  # >= 0, the paper's 1 - a; authors' code
    kd_weight: float = 0.0333  # >= 0, on T^2 KL; authors' 0.3 without T^2, over T^2 = 9
    feature_weight: float = 0.03  # >= 0, the paper's lambda; authors' code (eda2f2b)

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:  # noqa: ARG002
        if len(student.stages) < 2:
            return f"{student.name} has fewer than two stages: no exit is shallow"
        if len(student.shapes["pooled"]) != 1:
            return f"the pooled features of {student.name} are no vector"
        ranks = {len(shape) for shape in student.stages.values()}
        if ranks in ({1}, {3}):
            return None
        return f"the stages of {student.name} are neither all maps nor all vectors"

    def adapters(self, student: Tapped, teacher: Tapped | None) -> nn.Module:  # noqa: ARG002
        (width,), (classes,) = student.shapes["pooled"], student.shapes["logits"]
        return Exits(list(student.stages.values()), width, classes)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        logits, features = batch.student.logits, dict(batch.student.features)
        deepest = at_least_float32(features.pop("pooled").detach())
        exits = batch.adapters(list(features.values())[:-1])
        ce = [label_loss(batch.task, z, batch.targets) for _, z in exits]
        kd = [soft_kl(z, logits, self.temperature) for _, z in exits]
        apart = [torch.linalg.vector_norm(b - deepest) for b, _ in exits]
        own = label_loss(batch.task, logits, batch.targets)
        return {
            "ce": self.ce_weight * own,
            "shallow_ce": self.shallow_ce_weight * torch.stack(ce).sum(),
            "kd": self.kd_weight * torch.stack(kd).sum(),
            "feature": self.feature_weight * torch.stack(apart).sum(),
        }
