"""A model's identity is its parameters and multiply-accumulates, not its name."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from kdbench.measure.size import macs, parameters
from kdbench.models.mobilenet import MOBILENETS
from kdbench.models.resnet import RESNETS
from kdbench.models.shufflenet import SHUFFLENETS
from kdbench.models.vgg import VGG7_NARROW, VGGS
from kdbench.models.wide_resnet import WIDE_RESNETS

ZOO = {
    spec.name: spec
    for spec in (*RESNETS, *WIDE_RESNETS, *VGGS, *MOBILENETS, *SHUFFLENETS)
}
PROTOCOL = {
    "resnet8": ("0.084", "12.5"),
    "resnet14": ("0.181", "26.7"),
    "resnet20": ("0.278", "40.8"),
    "resnet32": ("0.473", "69.1"),
    "resnet44": ("0.667", "97.4"),
    "resnet56": ("0.862", "125.8"),
    "resnet110": ("1.737", "253.2"),
    "resnet8x4": ("1.234", "177.1"),
    "resnet32x4": ("7.434", "1083"),
    "resnet50": ("23.705", "1298"),
    "wrn_16_1": ("0.181", "26.7"),
    "wrn_16_2": ("0.703", "101.1"),
    "wrn_40_1": ("0.570", "83.3"),
    "wrn_40_2": ("2.255", "327.6"),
    "vgg8": ("3.965", "96.2"),
    "vgg11": ("9.277", "209"),
    "vgg13": ("9.462", "284.9"),
    "vgg16": ("14.774", "398"),
    "vgg19": ("20.087", "511"),
    "mobilenetv2": ("0.813", "6.5"),
    "shufflenetv1": ("0.949", "38.7"),
    "shufflenetv2": ("1.356", "44.5"),
}
"""Millions of parameters and of multiply-accumulates, 32x32 pixels and 100 classes."""
EXACT = {
    "resnet20": 278_324,
    "resnet56": 861_620,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_2": 703_284,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
}


def measured(name, side, outputs):
    with torch.device("meta"):
        model = ZOO[name].build((3, side, side), outputs).eval()
        return parameters(model), macs(model, torch.zeros(1, 3, side, side))


def in_millions(number, like):
    return f"{number / 1e6:.{len(like.partition('.')[2])}f}"


def test_every_model_has_a_fingerprint():
    assert set(ZOO) == {*PROTOCOL, "mobilenetv1"}


@pytest.mark.parametrize("name", PROTOCOL)
def test_parameters_and_macs_are_the_protocols(name):
    count, multiplications = measured(name, 32, 100)
    of_parameters, of_macs = PROTOCOL[name]
    assert in_millions(count, of_parameters) == of_parameters
    assert in_millions(multiplications, of_macs) == of_macs
    assert count == EXACT.get(name, count)


def test_four_narrow_blocks():
    """Four convolutions with biases and batch norm; three poolings."""
    widths = (3, 16, 32, 64, 128)
    kernels = [9 * a * b for a, b in pairwise(widths)]
    count = sum(kernels) + 3 * sum(widths[1:]) + 128 * 100 + 100
    sides = (32, 16, 8, 4)
    of_macs = sum(n * side**2 for n, side in zip(kernels, sides, strict=True)) + 12800
    with torch.device("meta"):
        model = VGG7_NARROW.build((3, 32, 32), 100).eval()
        assert parameters(model) == count == 110_820
        assert macs(model, torch.zeros(1, 3, 32, 32)) == of_macs


def test_mobilenetv1_is_the_papers():
    """4.2 million parameters, 569 million multiply-accumulates: its table 4."""
    count, multiplications = measured("mobilenetv1", 224, 1000)
    assert count == 4_231_976
    assert in_millions(multiplications, "569") == "569"
