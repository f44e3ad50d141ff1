"""Batch norms folded into what comes before them: the same answers, for fewer steps."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from kdbench.api import Model
from kdbench.data.digits import DIGITS, load
from kdbench.engine.faults import OutOfMemory
from kdbench.engine.feed import Feed
from kdbench.engine.folding import NORMS, folded, rounded
from kdbench.engine.teacher import Frozen, FrozenTeacher, weights_hash
from kdbench.models.convnet import convnet
from kdbench.models.lenet import lenet
from kdbench.models.mlp import mlp
from kdbench.models.taps import TappedModel
from kdbench.records import Recipe

TEACHERS = {
    "resnet20": 21,
    "resnet8x4": 10,
    "resnet32x4": 34,
    "resnet56": 57,
    "resnet110": 111,
    "resnet50": 53,
    "wrn_40_2": 18,  # its other batch norms come before convolutions, not after
    "vgg13": 10,
    "mobilenetv1": 27,
    "mobilenetv2": 53,
    "shufflenetv1": 49,
    "shufflenetv2": 56,
    "convnet_32": 3,
    "mlp_bn_256_128": 2,
    "mlp_64": 0,
    "ds_cnn_8": 9,
    "kws_res8": 7,
    "torchvision:resnet18": 20,
}
"""Model -> batch norms that fold: the field's teachers, and other kinds."""


def warmed(module, inputs):
    """Untrained, but with batch norms that know its activations, as a trained one's."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for value, mean in ((part.weight, 1), (part.bias, 0)):
                if value is not None:
                    nn.init.normal_(value, mean, 0.2)
            part.momentum = 1.0
    with torch.no_grad():
        module.train()(inputs)
    return module.eval().requires_grad_(False)


def norms_of(module):
    return [p for p in module.modules() if type(p) in NORMS.values()]


def worst(one, two):
    """The largest difference of two answers, as a share of the largest value."""
    pairs = [(one.logits, two.logits)]
    pairs += [(one.features[tap], two.features[tap]) for tap in one.features]
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)


SLOW = ("resnet50", "resnet32x4")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in TEACHERS
    ],
)
def test_a_folded_model_says_the_same_at_every_tap(host, name):
    spec = host.model(name)
    torch.manual_seed(0)
    shape = {
        "ds_cnn_8": (1, 40, 32),
        "kws_res8": (1, 40, 32),
        "torchvision:resnet18": (3, 32, 32),
    }
    inputs = torch.randn(4, *shape.get(name, (3, 16, 16)))
    module = warmed(spec.build(tuple(inputs.shape[1:]), 10), inputs)
    before = weights_hash(module)
    copy = folded(spec, module, inputs[:2])
    assert len(copy.pairs) == TEACHERS[name]
    assert len(norms_of(copy.module)) == len(norms_of(module)) - TEACHERS[name]
    taps = list(spec.taps)
    with torch.no_grad():
        answer = TappedModel(spec, copy.module, taps)(inputs)
        expected = TappedModel(spec, module, taps)(inputs)
    assert list(answer.features) == list(expected.features)
    assert worst(expected, answer) < 1e-4
    assert weights_hash(module) == before
    Frozen([copy.module]).check()


class Net(nn.Module):
    """Convolutions and batch norms, put together by `way`."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.first, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.other = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=way == "in place")
        self.classifier = nn.Linear(6, 10)
        if way == "weight norm":
            parametrizations.weight_norm(self.first)
        if way == "no statistics":
            self.norm = nn.BatchNorm2d(6, track_running_stats=False)
        if way == "plain scale":
            self.norm = nn.BatchNorm2d(6, affine=False)
        if way == "alias":
            self.same = self.norm

    def forward(self, inputs):
        if self.way == "float32":
            inputs = inputs.float()
        maps = self.first(inputs)
        scaled = self.same(maps) if self.way == "alias" else self.norm(maps)
        if self.way == "shortcut":
            scaled = scaled + maps
        active = self.relu(scaled)
        deep = self.second(active)
        if self.way == "twice":
            deep = self.second(deep)
        deep = self.other(deep)
        if self.way == "norm twice":
            deep = self.other(deep)
        return self.classifier(self.relu(deep).mean((2, 3)))


def net(way, *taps):
    return Model(
        name="net",
        summary="a net",
        build=lambda *_: Net(way),
        classifier="classifier",
        taps={tap: tap for tap in taps},
    )


@pytest.fixture
def made():
    def made(way):
        torch.manual_seed(0)
        inputs = torch.randn(8, 1, 8, 8)
        return warmed(Net(way), inputs), inputs

    return made


@pytest.mark.parametrize(
    ("way", "layers"),
    [
        ("plain", ["first", "second"]),
        ("shortcut", ["second"]),
        ("twice", ["first"]),
        ("norm twice", ["first"]),
        ("weight norm", ["second"]),
        ("no statistics", ["second"]),
        ("plain scale", ["first", "second"]),
        ("in place", ["first", "second"]),
        ("alias", ["first", "second"]),
        ("float32", []),  # it does not compute in float64, so it cannot be compared
    ],
)
def test_only_what_nobody_else_reads_is_folded(made, way, layers):
    module, inputs = made(way)
    copy = folded(net(way), module, inputs)
    assert [layer for layer, _ in copy.pairs] == layers
    with torch.no_grad():
        torch.testing.assert_close(
            copy.module(inputs), module(inputs), rtol=1e-4, atol=1e-5
        )


def test_a_tap_of_the_model_is_never_folded_away(made):
    module, inputs = made("plain")
    for tap in ("first", "norm:input"):
        copy = folded(net("plain", tap), module, inputs)
        assert [layer for layer, _ in copy.pairs] == ["second"]


@pytest.mark.parametrize("way", ["plain", "in place"])
def test_every_module_path_has_the_originals_value_or_is_known_not_to(made, way):
    """An in-place ReLU writes to what a batch norm gives; folded, the same."""
    module, inputs = made(way)
    spec = net(way, "norm", "relu:input", "other")
    copy = folded(spec, module, inputs)
    assert copy.hidden == {"first", "norm:input", "second", "other:input"}
    with torch.no_grad():
        expected = TappedModel(spec, module, list(spec.taps))(inputs)
        answer = TappedModel(spec, copy.module, list(spec.taps))(inputs)
    assert (expected.features["norm"].min() >= 0) == (way == "in place")
    assert worst(expected, answer) < 1e-5


def test_a_machine_without_memory_is_no_reason_not_to_fold(made, monkeypatch):
    """Bits would depend on it: it is told instead."""
    module, inputs = made("plain")

    def fails(*_args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Net, "forward", fails)
    with pytest.raises(OutOfMemory):
        folded(net("plain"), module, inputs)


def feed(precision="float32"):
    recipe = Recipe(batch_size=64, flip=True, precision=precision)
    data = load(None, False)
    return Feed(data, DIGITS.task, recipe, 0, torch.device("cpu"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_others_tap_changes_no_bit(made, precision):
    """Also taps that folding hides: these are the original's, to the bit."""
    module, inputs = made("plain")
    spec, some = net("plain", "norm"), feed(precision)
    with torch.no_grad():
        alone = FrozenTeacher(spec, module, ["norm"], some)(inputs)
        wanted = ["norm", "first", "other:input", "classifier:input"]
        company = FrozenTeacher(spec, module, wanted, some)(inputs)
        original = TappedModel(spec, module, wanted, precision)(inputs)
    assert list(company.features) == list(original.features)
    assert torch.equal(alone.logits, company.logits)
    assert torch.equal(alone.features["norm"], company.features["norm"])
    for tap in ("first", "other:input"):
        assert torch.equal(company.features[tap], original.features[tap])
    assert not torch.equal(company.features["norm"], original.features["norm"])
    with pytest.raises(TypeError):
        company.features["norm"] = 0


@pytest.mark.parametrize(
    "spec",
    [convnet(8), lenet("lenet", 3, 4, 20, 10), mlp(16, 8, batch_norm=True)],
    ids=lambda spec: spec.name,
)
def test_weights_rounded_once_give_the_bits_of_autocast(spec):
    torch.manual_seed(0)
    inputs = torch.randn(16, 1, 28, 28)
    module = spec.build((1, 28, 28), 10)
    module = folded(spec, warmed(module, inputs), inputs).module
    copy = rounded(module, inputs[:2])
    layers = [part for part in copy.modules() if type(part) in NORMS]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    taps = list(spec.taps)
    with torch.no_grad():
        answer = TappedModel(spec, copy, taps, "bfloat16")(inputs)
        expected = TappedModel(spec, module, taps, "bfloat16")(inputs)
    assert torch.equal(answer.logits, expected.logits)
    for tap in taps:
        assert torch.equal(answer.features[tap], expected.features[tap])


def test_weights_that_are_read_in_another_way_are_not_rounded():
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(6, 3)

        def forward(self, inputs):
            return inputs @ nn.functional.normalize(self.classifier.weight).T

    module = Cosine()
    assert rounded(module, torch.randn(2, 6)) is module


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_classifier_handed_out_is_the_originals(precision):
    spec = convnet(8)
    module = warmed(DIGITS.build(spec), torch.randn(8, 1, 8, 8))
    before = deepcopy(module.state_dict())
    teacher = FrozenTeacher(spec, module, ["pooled"], feed(precision))
    with torch.no_grad():
        answer = teacher(torch.randn(4, 1, 8, 8))
    assert answer.classifier is module.classifier
    assert answer.classifier(answer.features["pooled"]).dtype == torch.float32
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("whose", ["copy", "original", "mode"])
def test_a_change_of_either_is_caught(whose):
    spec = convnet(8)
    module = warmed(DIGITS.build(spec), torch.randn(8, 1, 8, 8))
    teacher = FrozenTeacher(spec, module, [], feed("bfloat16"))
    frozen = Frozen([teacher.module])
    frozen.check()
    if whose == "mode":
        module.stage1[1].train()
    else:
        part = module if whose == "original" else teacher.module[0]
        assert (part is module) == (whose == "original")
        part.stem[0].weight.data.mul_(1.5)
    with pytest.raises(RuntimeError, match="teacher"):
        frozen.check()
