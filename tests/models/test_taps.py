"""Tapping: names, module paths, shapes, and no effect on the model's answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from kdbench.api import UserError
from kdbench.data.digits import DIGITS
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp
from kdbench.models.resnet import cifar_resnet
from kdbench.models.taps import TappedModel, classifier_of, probe


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            convnet(8),
            {
                "stem": (8, 8, 8),
                "preact1": (8, 8, 8),
                "stage1": (8, 8, 8),
                "preact2": (16, 4, 4),
                "stage2": (16, 4, 4),
                "maps": (16, 4, 4),
                "pooled": (16,),
                "logits": (10,),
            },
        ),
        (
            mlp(32, 16, batch_norm=True),
            {
                "preact1": (32,),
                "stage1": (32,),
                "preact2": (16,),
                "stage2": (16,),
                "maps": (16,),
                "pooled": (16,),
                "logits": (10,),
            },
        ),
    ],
    ids=["convnet", "mlp"],
)
def test_every_declared_tap_has_its_shape(spec, expected):
    found = probe(spec, tuple(spec.taps), DIGITS)
    assert found.shapes == expected
    assert list(found.stages) == ["stage1", "stage2"]


def test_probing_needs_no_data_and_no_randomness():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    found = probe(convnet(8), ("stages",), DIGITS)
    assert torch.equal(torch.rand(3), expected)
    assert all(p.is_meta for p in found.model.parameters())


def test_tapping_changes_nothing_and_gives_the_modules_own_values():
    spec = convnet(4)
    module = spec.build((1, 8, 8), 10).eval()
    inputs = torch.randn(5, 1, 8, 8)
    plain = module(inputs)
    outputs = TappedModel(spec, module, ["stages", "pooled", "stem.0"])(inputs)
    assert torch.equal(outputs.logits, plain)
    assert list(outputs.features) == ["stage1", "stage2", "pooled", "stem.0"]
    assert torch.equal(outputs.features["stem.0"], module.stem[0](inputs))
    pooled = outputs.features["stage2"].mean((2, 3))
    assert torch.allclose(outputs.features["pooled"], pooled, atol=1e-6)
    assert torch.equal(module.classifier(outputs.features["pooled"]), plain)


def test_an_unknown_tap_lists_what_there_is():
    with pytest.raises(UserError) as caught:
        probe(convnet(4), ("stage3",), DIGITS)
    assert "'stage3'" in str(caught.value)
    assert "'stage2'" in str(caught.value)
    assert "convnet_4" in str(caught.value)


def test_the_articles_pair_has_the_articles_sizes():
    teacher = mlp(512, 256).build((1, 28, 28), 10)
    student = mlp(256, 128).build((1, 28, 28), 10)
    assert sum(p.numel() for p in teacher.parameters()) == 535_818
    assert sum(p.numel() for p in student.parameters()) == 235_146


def test_preacts_are_all_the_features_before_an_activation():
    spec = cifar_resnet(8)
    module = spec.build((3, 16, 16), 10).eval()
    names = [name for name in spec.taps if name.startswith("preact")]
    assert len(names) == 3
    outputs = TappedModel(spec, module, ["preacts", "stages"])(
        torch.randn(2, 3, 16, 16)
    )
    assert [n for n in outputs.features if n.startswith("preact")] == names
    for k in (1, 2, 3):
        before, after = (outputs.features[f"{n}{k}"] for n in ("preact", "stage"))
        assert before.min() < 0
        assert torch.equal(before.relu(), after)


def test_a_model_without_preacts_says_what_there_is():
    with pytest.raises(UserError, match=r"mlp_8.*preact"):
        probe(replace(mlp(8), taps={}), ("preacts",), DIGITS)


def test_the_classifier_reads_the_pooled_features_and_is_live():
    spec = convnet(4)
    module = spec.build((1, 8, 8), 10)
    outputs = TappedModel(spec, module, ["pooled"])(torch.randn(5, 1, 8, 8))
    assert outputs.classifier is module.classifier
    assert torch.equal(outputs.classifier(outputs.features["pooled"]), outputs.logits)


@pytest.mark.parametrize(
    ("taps", "found"),
    [
        ({}, None),
        ({"pooled": "0:input"}, 0),
        ({"pooled": "2:input"}, None),
        ({"pooled": "0"}, None),  # its output is pooled, not its input
    ],
)
def test_only_a_linear_layer_behind_pooled_is_the_classifier(taps, found):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Flatten())
    spec = replace(convnet(4), taps=taps)
    assert classifier_of(spec, net) is (None if found is None else net[found])
