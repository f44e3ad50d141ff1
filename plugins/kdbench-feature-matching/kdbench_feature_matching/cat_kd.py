"""Class attention transfer. Guo et al. 2023, CVPR, section 3.

M = V m: the class activation maps (classes, H, W) of either model, where m are the maps
that it averages before its classifier and V that classifier's weights, without bias
Q(M) = M averaged to resolution x resolution, each class scaled to unit length
loss = ce_weight * CE + cat_weight * mean (Q(M_s) - Q(M_t))^2

The mean is over the batch, classes and positions; the student's V learns from both
terms. As in the authors' code, `normalised` may be turned off to leave M at its length,
and `binarised` makes the teacher's M 1 where it exceeds a class's mean absolute
activation and 0 elsewhere. The authors tune weight, resolution and scaling to the pair
(preset "authors"), and their classifiers have no bias; here they keep it.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Outputs, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import unit
from kdbench_feature_matching.heads import MAPS, why_no_head

SETTINGS = {
    "resnet56-resnet20": (0.7, 2, False),
    "resnet110-resnet32": (1.8, 2, False),
    "resnet32x4-resnet8x4": (15.0, 2, False),
    "wrn_40_2-wrn_16_2": (12.0, 2, False),
    "wrn_40_2-wrn_40_1": (1.5, 2, False),
    "vgg13-vgg8": (4.5, 2, False),
    "vgg13-mobilenetv2": (15.0, 2, True),
    "resnet50-mobilenetv2": (40.0, 2, True),
    "resnet32x4-shufflenetv1": (600.0, 4, True),
    "resnet32x4-shufflenetv2": (600.0, 4, True),
    "wrn_40_2-shufflenetv1": (80.0, 4, True),
    "resnet34-resnet18": (0.5, 4, False),
}
"""Pair -> (cat_weight, resolution, normalised) in the authors' configurations."""
NAMES = ("cat_weight", "resolution", "normalised")
AUTHORS = {k: dict(zip(NAMES, v, strict=True)) for k, v in SETTINGS.items()}


def class_maps(maps: Tensor, weight: Tensor) -> Tensor:
    """Class activation maps (B, classes, H, W) of maps (B, C, H, W)."""
    return F.conv2d(maps, weight[:, :, None, None])


def attention(
    maps: Tensor, weight: Tensor, resolution: int, binarised: bool = False
) -> Tensor:
    """Class activation maps, averaged to (B, classes, resolution, resolution)."""
    maps = maps.to(weight.dtype)
    if binarised:
        active = class_maps(maps, weight)
        above = active > active.abs().mean(dim=(2, 3), keepdim=True)
        return F.adaptive_avg_pool2d(above.to(weight.dtype), resolution)
    # Averages of weighted sums are weighted sums of averages, which cost less.
    return class_maps(F.adaptive_avg_pool2d(maps, resolution), weight)


def attention_of(model: Outputs, resolution: int, binarised: bool = False) -> Tensor:
    """`attention` of a model's last maps by its own classifier."""
    assert model.classifier is not None  # noqa: S101 (supports() saw it)
    weight = model.classifier.weight
    return attention(model.features[MAPS], weight, resolution, binarised)


def attention_loss(student: Tensor, teacher: Tensor, normalised: bool) -> Tensor:
    """Mean square difference of class maps (B, classes, h, w): a scalar."""
    student, teacher = student.flatten(2), teacher.flatten(2)
    if normalised:
        student, teacher = unit(student, dim=2), unit(teacher, dim=2)
    return F.mse_loss(student, teacher)


@dataclass(frozen=True, kw_only=True)
class ClassAttention(Strategy):
    """Match where in the image either model sees each class."""

    name = "cat_kd"
    family = "feature matching"
    paper = "Guo et al. 2023, CVPR"
    taps = (MAPS, "pooled")
    presets = {"authors": AUTHORS}  # noqa: RUF012 (the base class says it is a mapping)

    resolution: int = 2  # positions per side that are compared, >= 1; authors' code
    normalised: bool = True  # each class to unit length; authors' code
    binarised: bool = False  # the teacher's maps to 0 and 1; authors' code
    ce_weight: float = 1.0  # >= 0; authors' code
    cat_weight: float = 400.0  # >= 0, on the mean square; authors' code, 0.5 to 600

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution < 1 + self.normalised:
            what = "2 where maps are normalised" if self.normalised else "1"
            raise ValueError(f"resolution must be >= {what}, not {self.resolution}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = why_no_head(student) or why_no_head(teacher)
        if reason or teacher is None:
            return reason
        for model in (student, teacher):
            if len(model.shapes[MAPS]) != 3 or model.shapes[MAPS][1:] == (1, 1):
                shape = model.shapes[MAPS]
                return f"{model.name} classifies {shape}, which has no positions"
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student, batch.teacher
        attended = attention_loss(
            attention_of(student, self.resolution),
            teacher.once(attention_of, self.resolution, self.binarised),
            self.normalised,
        )
        ce = label_loss(batch.task, student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "attention": self.cat_weight * attended}
