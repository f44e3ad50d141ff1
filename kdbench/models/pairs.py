"""The pairs that everybody compares on, and small ones that a CPU can train.

The CIFAR-100 pairs are those of Tian et al. 2020 (arXiv:1910.10699), tables 1 and 2;
the ImageNet pairs those of Tian et al. and Heo et al. 2019 (arXiv:1904.01866).
"""

from __future__ import annotations

from kdbench.api import Pair

SAME_FAMILY = (
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("vgg13", "vgg8"),
)
CROSS_FAMILY = (
    ("vgg13", "mobilenetv2"),
    ("resnet50", "mobilenetv2"),
    ("resnet50", "vgg8"),
    ("resnet32x4", "shufflenetv1"),
    ("resnet32x4", "shufflenetv2"),
    ("wrn_40_2", "shufflenetv1"),
)
SMALL = (
    ("resnet20", "resnet8"),
    ("wrn_16_2", "wrn_16_1"),
    ("resnet20", "vgg7_narrow"),
)


ASSISTANTS = {
    "wrn_40_2-wrn_16_2": "resnet8x4",
    "wrn_40_2-wrn_40_1": "wrn_16_2",
    "resnet56-resnet20": "resnet32",
    "resnet110-resnet20": "resnet56",
    "resnet110-resnet32": "resnet56",
    "resnet32x4-resnet8x4": "wrn_40_2",
    "vgg13-vgg8": "vgg11",
    "vgg13-mobilenetv2": "vgg8",
    "resnet50-mobilenetv2": "wrn_40_2",
    "resnet50-vgg8": "vgg11",
    "resnet32x4-shufflenetv1": "wrn_40_2",
    "resnet32x4-shufflenetv2": "wrn_40_2",
    "wrn_40_2-shufflenetv1": "resnet8x4",
    "resnet20-resnet8": "resnet14",
    "wrn_16_2-wrn_16_1": "wrn_40_1",
    "resnet20-vgg7_narrow": "resnet14",
}
"""Our choice: a model with a number of parameters between the teacher's and the
student's, where there is one of their family (Mirzadeh et al. 2020 use plain ones)."""


def _pairs(sides: tuple[tuple[str, str], ...], summary: str) -> list[Pair]:
    return [
        Pair(
            name=f"{t}-{s}",
            teachers=(t,),
            students=(s,),
            summary=summary,
            assistants=(ASSISTANTS[f"{t}-{s}"],),
        )
        for t, s in sides
    ]


PAIRS = [
    *_pairs(SAME_FAMILY, "CIFAR-100, same family"),
    *_pairs(CROSS_FAMILY, "CIFAR-100, cross family"),
    *_pairs(SMALL, "CIFAR-100, small enough for a CPU"),
    Pair(
        name="resnet34-resnet18",
        teachers=("torchvision:resnet34",),
        students=("torchvision:resnet18",),
        summary="ImageNet, same family",
    ),
    Pair(
        name="resnet50-mobilenetv1",
        teachers=("torchvision:resnet50",),
        students=("mobilenetv1",),
        assistants=("torchvision:resnet18",),
        summary="ImageNet, cross family",
    ),
    Pair(
        name="digits-mlp",
        teachers=("mlp_bn_256_128",),
        students=("mlp_bn_8_8",),
        assistants=("mlp_bn_32_32",),
        summary="dense layers with batch norm, for 8x8 digits",
    ),
    Pair(
        name="digits-conv",
        teachers=("convnet_32",),
        students=("convnet_6",),
        assistants=("convnet_14",),
        summary="plain convnets, the teacher five times as wide",
    ),
    Pair(
        name="mnist-mlp",
        teachers=("mlp_512_256",),
        students=("mlp_256_128",),
        assistants=("mlp_384_192",),
        summary="the seed articles' pair: 784-512-256-10 and 784-256-128-10",
    ),
    Pair(
        name="mnist-lenet",
        teachers=("lenet",),
        students=("lenet_half",),
        assistants=("lenet_three_quarters",),
        summary="LeNet-5 and one of half its width",
    ),
    Pair(
        name="lenet-dense",
        teachers=("lenet",),
        students=("mlp_32",),
        summary="a convnet teaches a dense net of one hidden layer",
    ),
    Pair(
        name="split-mlp",
        teachers=("mlp_64",),
        students=("mlp_32",),
        summary="64 hidden units, and half of them",
    ),
    Pair(
        name="tabular-mlp",
        teachers=("mlp_64",),
        students=("mlp_5",),
        summary="10-64-2 and the seed articles' 10-5-2, for tables of ten columns",
    ),
]
