"""Settings that authors give for single pairs of models."""

from collections.abc import Mapping

Presets = Mapping[str, Mapping[str, Mapping[str, float]]]


def _authors(*groups: tuple[str, Mapping[str, float]]) -> Presets:
    """From (names of pairs, their hyper-parameters)."""
    return {"authors": {pair: own for pairs, own in groups for pair in pairs.split()}}


DKD = _authors(
    (
        "resnet56-resnet20 resnet110-resnet32",
        {"temperature": 4.0, "non_target_weight": 2.0},
    ),
    (
        "wrn_40_2-wrn_16_2 wrn_40_2-wrn_40_1 vgg13-vgg8 vgg13-mobilenetv2",
        {"temperature": 4.0, "non_target_weight": 6.0},
    ),
    (
        "resnet32x4-resnet8x4 resnet50-mobilenetv2 resnet32x4-shufflenetv1 "
        "resnet32x4-shufflenetv2 wrn_40_2-shufflenetv1",
        {"temperature": 4.0, "non_target_weight": 8.0},
    ),
)
"""Authors' code, mdistiller configs/cifar100/dkd."""

LOGIT_STANDARDIZATION = _authors(
    (
        "resnet32x4-resnet8x4 wrn_40_2-wrn_40_1 wrn_40_2-wrn_16_2 "
        "resnet56-resnet20 resnet110-resnet32 resnet32x4-shufflenetv2",
        {"temperature": 2.0, "kd_weight": 9.0},
    ),
    ("vgg13-vgg8 vgg13-mobilenetv2", {"temperature": 3.0, "kd_weight": 9.0}),
    ("resnet50-mobilenetv2", {"temperature": 3.0, "kd_weight": 1.0}),
    ("resnet110-resnet20", {"temperature": 4.0, "kd_weight": 12.0}),
)
"""By the names of the logs that the authors link."""

WSLD = _authors(
    (
        "resnet56-resnet20 resnet110-resnet32 resnet32x4-resnet8x4",
        {"temperature": 4.0, "kd_weight": 2.25},
    ),
    (
        "resnet34-resnet18 resnet50-mobilenetv1",
        {"temperature": 2.0, "kd_weight": 2.5},
    ),
)
"""CIFAR-100 as the authors answer in their issue 2, ImageNet as in their code."""
