"""The image models: features, taps, first weights, any size and number of channels."""

from __future__ import annotations

import pickle
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.models.mobilenet import MOBILENETS
from kdbench.models.resnet import RESNETS, cifar_resnet
from kdbench.models.shufflenet import SHUFFLENETS
from kdbench.models.taps import TappedModel
from kdbench.models.vgg import VGGS
from kdbench.models.wide_resnet import WIDE_RESNETS, wrn

ZOO = [*RESNETS, *WIDE_RESNETS, *VGGS, *MOBILENETS, *SHUFFLENETS]
NAMES = [spec.name for spec in ZOO]
BY_NAME = dict(zip(NAMES, ZOO, strict=True))

THIN = [(16, 32), (16, 32), (32, 16), (64, 8), 64]
OF_WRN = {
    1: [(16, 32), (16, 32), (32, 16), (64, 8), 64],
    2: [(16, 32), (32, 32), (64, 16), (128, 8), 128],
}
X4 = [(32, 32), (64, 32), (128, 16), (256, 8), 256]
OF_VGG = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4), 512]
AT_32 = {
    **{f"resnet{depth}": THIN for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": X4,
    "resnet32x4": X4,
    "resnet50": [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4), 2048],
    **{f"wrn_{depth}_{k}": OF_WRN[k] for depth in (16, 40) for k in (1, 2)},
    **{f"vgg{depth}": OF_VGG for depth in (8, 11, 13, 16, 19)},
    "mobilenetv2": [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2), 1280],
    "mobilenetv1": [(32, 16), (128, 8), (256, 4), (512, 2), (1024, 1), 1024],
    "shufflenetv1": [(24, 32), (240, 16), (480, 8), (960, 4), 960],
    "shufflenetv2": [(24, 32), (116, 16), (232, 8), (464, 4), 1024],
}
"""(channels, pixels on a side) of stem and stages, and the pooled vector's length."""

every_model = pytest.mark.parametrize("spec", ZOO, ids=NAMES)
DEEPER = r"resnet(20|32|44|56|110)|wrn_40_\d|vgg(11|16|19)"
"""Models that are others with more blocks or layers in each stage."""
KINDS = [name for name in NAMES if not re.fullmatch(DEEPER, name)]
every_kind = pytest.mark.parametrize("spec", [BY_NAME[n] for n in KINDS], ids=KINDS)


def tap_names(stages, kinds):
    middle = [f"{kind}{k}" for k in range(1, stages + 1) for kind in kinds]
    return ["stem", *middle, "maps", "pooled"]


def shapes(spec, input_shape, outputs=10):
    with torch.device("meta"), torch.no_grad():
        tapped = TappedModel(spec, spec.build(input_shape, outputs), tuple(spec.taps))
        answer = tapped(torch.zeros(2, *input_shape))
    assert answer.logits.shape == (2, outputs)
    return {name: tuple(value.shape[1:]) for name, value in answer.features.items()}


def built(spec, channels=3, outputs=10):
    """A model with batch norms that are not the identity, and four 16x16 images."""
    torch.manual_seed(0)
    model = spec.build((channels, 16, 16), outputs).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias, std=0.3)
    return model, torch.randn(4, channels, 16, 16)


@every_model
def test_taps_have_the_shapes_of_the_papers(spec):
    found = shapes(spec, (3, 32, 32))
    *maps, pooled = AT_32[spec.name]
    stages = [f"stage{k}" for k in range(1, len(maps))]
    expected = dict(zip(["stem", *stages], maps, strict=True))
    for name, (channels, side) in expected.items():
        assert found[name] == (channels, side, side)
    for name in stages:
        assert found[name.replace("stage", "preact")] == found[name]
    assert found["pooled"] == (pooled,)


@every_model
def test_taps_are_in_forward_order_and_stages_are_only_stages(spec):
    stages = len(AT_32[spec.name]) - 2
    after = spec.name.startswith("wrn")
    kinds = ("stage", "preact") if after else ("preact", "stage")
    assert list(spec.taps) == tap_names(stages, kinds)
    assert spec.classifier == "classifier"


@every_model
def test_preactivations_are_what_the_last_relu_of_a_stage_is_given(spec):
    model, images = built(spec)
    features = TappedModel(spec, model, tuple(spec.taps))(images).features
    stages = [name for name in features if name.startswith("stage")]
    for name in stages:
        stage, preact = features[name], features[name.replace("stage", "preact")]
        if spec.name == "mobilenetv2":  # linear bottlenecks
            assert torch.equal(preact, stage)
        elif spec.name.startswith("wrn"):  # pre-activation blocks
            assert stage.min() < 0
            assert (preact - stage).abs().max() > 0.1
        else:
            assert torch.equal(preact.relu(), stage)
            assert preact.min() < 0
    last = model.head(features[stages[-1]])
    pooled = features["pooled"]
    assert torch.equal(features["maps"], last)
    torch.testing.assert_close(pooled, last.mean((2, 3)), atol=1e-5, rtol=1e-5)
    assert torch.equal(model.classifier(pooled), model(images))


def test_a_wrn_stage_goes_through_the_next_norm_and_relu():
    model, images = built(BY_NAME["wrn_16_2"])
    wanted = (*BY_NAME["wrn_16_2"].taps, "stages.1.0.body.0:input")
    features = TappedModel(BY_NAME["wrn_16_2"], model, wanted)(images).features
    for k, norm in enumerate([model.stages[1][0].norm, model.stages[2][0].norm]):
        assert torch.equal(norm(features[f"stage{k + 1}"]), features[f"preact{k + 1}"])
    assert torch.equal(model.head[0](features["stage3"]), features["preact3"])
    given = features["stages.1.0.body.0:input"]
    assert torch.equal(features["preact1"].relu(), given)


@every_kind
def test_tapped_values_are_not_overwritten(spec):
    model, images = built(spec)
    assert not any(getattr(part, "inplace", False) for part in model.modules())
    kept = {}

    def keep(path):
        place = model.get_submodule(path.removesuffix(":input"))
        if path.endswith(":input"):
            hook = place.register_forward_pre_hook
            hook(lambda _m, args: kept.update({path: (args[0], args[0].clone())}))
        else:
            hook = place.register_forward_hook
            hook(lambda _m, _a, out: kept.update({path: (out, out.clone())}))

    for path in spec.taps.values():
        keep(path)
    model(images)
    assert set(kept) == set(spec.taps.values())
    assert all(torch.equal(value, copy) for value, copy in kept.values())


@every_model
def test_every_convolution_is_normalised(spec):
    with torch.device("meta"):
        model = spec.build((3, 32, 32), 10)
    parts = [part for part in model.modules() if not list(part.children())]
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d)]
    if spec.name.startswith("wrn"):
        blocks = sum(len(stage) for stage in model.stages)
        assert len(norms) == 2 * blocks + 1  # one before each convolution, the last
        return
    assert len(norms) == len(convolutions)
    following = dict(pairwise(parts))
    for convolution in convolutions:
        assert following[convolution].num_features == convolution.out_channels


@pytest.mark.parametrize("name", [n for n in NAMES if n[:3] in ("res", "vgg", "mob")])
def test_the_last_batch_norm_of_a_stage_is_the_one_before_its_preactivation(name):
    """Which margins over batch norms rely on; the shortcut's is registered before."""
    with torch.device("meta"):
        model = BY_NAME[name].build((3, 32, 32), 10)
    for stage in model.stages:
        path, norm = [
            (path, part)
            for path, part in stage.named_modules()
            if isinstance(part, nn.BatchNorm2d)
        ][-1]
        assert "shortcut" not in path
        assert path.startswith(f"{len(stage) - 1}.") or name.startswith("vgg")
        rest = list(stage.modules())[list(stage.modules()).index(norm) + 1 :]
        assert all(isinstance(part, nn.ReLU) for part in rest)


@every_kind
def test_gradients_reach_every_parameter(spec):
    model, images = built(spec)
    model.train()
    F.cross_entropy(model(images), torch.arange(4)).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, path


@every_kind
def test_channels_last_gives_the_same(spec):
    model, images = built(spec)
    with torch.no_grad():
        expected = model(images)
        model.to(memory_format=torch.channels_last)
        found = model(images.contiguous(memory_format=torch.channels_last))
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-4, rtol=1e-4)


@every_kind
@pytest.mark.parametrize(
    "input_shape", [(1, 28, 28), (3, 64, 64), (3, 96, 96), (4, 8, 24)]
)
def test_any_number_of_channels_and_size(spec, input_shape):
    found = shapes(spec, input_shape, outputs=2)
    assert found["pooled"] == (AT_32[spec.name][-1],)


def test_vgg_pools_before_its_last_block_from_64_pixels_on():
    sides = {
        side: [s[-1] for s in shapes(BY_NAME["vgg8"], (3, side, side)).values()][:-2]
        for side in (32, 63, 64, 96)
    }
    assert sides[32] == [32, 16, 16, 8, 8, 4, 4, 4, 4]
    assert sides[63] == [63, 31, 31, 15, 15, 7, 7, 7, 7]
    assert sides[64] == [64, 32, 32, 16, 16, 8, 8, 4, 4]
    assert sides[96] == [96, 48, 48, 24, 24, 12, 12, 6, 6]


@every_model
def test_inputs_that_are_no_images_are_refused(spec):
    with pytest.raises(ValueError, match=r"needs images \(C, H, W\), not .*\(64,\)"):
        spec.build((64,), 10)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match=r"VGG needs images of 8x8 and up.*4, 32"):
        BY_NAME["vgg8"].build((3, 4, 32), 10)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: cifar_resnet(18), r"6n \+ 2 layers .* not 18"),
        (lambda: cifar_resnet(2), r"6n \+ 2 layers .* not 2"),
        (lambda: wrn(28 + 1, 10), r"6n \+ 4 layers .* not 29"),
    ],
    ids=["resnet18", "resnet2", "wrn_29"],
)
def test_depths_that_no_number_of_blocks_gives_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("name", [n for n in NAMES if n[:3] in ("res", "wrn", "vgg")])
def test_convolutions_start_with_the_variance_of_their_fan_out(name):
    torch.manual_seed(0)
    model = BY_NAME[name].build((3, 32, 32), 100)
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 4000:
            fan_out = part.out_channels * part.kernel_size[0] ** 2
            ratio = part.weight.var() * fan_out / 2
            assert 0.8 < ratio < 1.2
            assert part.bias is None or not part.bias.any()
        if isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all()
            assert not part.bias.any()


@pytest.mark.parametrize("name", ["vgg8", "mobilenetv2"])
def test_small_classifiers(name):
    torch.manual_seed(0)
    classifier = BY_NAME[name].build((3, 32, 32), 100).classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not classifier.bias.any()


@every_model
def test_models_can_be_sent_to_worker_processes(spec):
    assert pickle.loads(pickle.dumps(spec)) is not spec  # noqa: S301 (our own bytes)
