"""Models of torchvision and timm by name: what is built, tapped and refused."""

from __future__ import annotations

import importlib.util
import pickle

import pytest
import torch
from torch import nn

from kdbench.api import UserError
from kdbench.models import external
from kdbench.models.external import timm_model, torchvision_model
from kdbench.models.taps import TappedModel
from kdbench.vision import torchvision

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None,
    reason="timm is not installed; pip install 'kdbench[timm]'",
)


def shapes(spec, input_shape, outputs=10):
    with torch.device("meta"), torch.no_grad():
        model = spec.build(input_shape, outputs).eval()
        answer = TappedModel(spec, model, tuple(spec.taps))(
            torch.zeros(2, *input_shape)
        )
    assert answer.logits.shape == (2, outputs)
    return {name: tuple(value.shape[1:]) for name, value in answer.features.items()}


def parameters(spec, outputs=1000):
    with torch.device("meta"):
        model = spec.build((3, 224, 224), outputs)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "count", "channels"),
    [
        ("resnet18", 11_689_512, (64, 128, 256, 512)),
        ("resnet34", 21_797_672, (64, 128, 256, 512)),
        ("resnet50", 25_557_032, (256, 512, 1024, 2048)),
    ],
)
def test_the_residual_networks_of_the_imagenet_pairs(name, count, channels):
    """Parameters as torchvision publishes them; taps as of the CIFAR models."""
    spec = torchvision_model(name)
    assert spec.name == f"torchvision:{name}"
    assert spec.classifier == "fc"
    assert parameters(spec) == count
    found = shapes(spec, (3, 224, 224))
    order = [f"{kind}{k}" for k in (1, 2, 3, 4) for kind in ("preact", "stage")]
    assert list(found) == ["stem", *order, "maps", "pooled"]
    assert found["stem"] == (64, 112, 112)
    for k, (width, side) in enumerate(zip(channels, (56, 28, 14, 7), strict=True)):
        assert found[f"stage{k + 1}"] == found[f"preact{k + 1}"] == (width, side, side)
    assert found["pooled"] == (channels[-1],)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_preactivations_of_residual_networks(name):
    torch.manual_seed(0)
    spec = torchvision_model(name)
    model = spec.build((3, 32, 32), 10)
    tapped = TappedModel(spec, model, tuple(spec.taps))
    features = tapped(torch.randn(4, 3, 32, 32)).features
    for k in (1, 2, 3, 4):
        assert torch.equal(features[f"preact{k}"].relu(), features[f"stage{k}"])
        assert features[f"preact{k}"].min() < 0


@pytest.mark.parametrize(
    ("name", "classifier", "stages"),
    [
        ("densenet121", "classifier", 4),
        ("shufflenet_v2_x0_5", "fc", 3),
        ("regnet_y_400mf", "fc", 4),
        ("mobilenet_v3_small", "classifier.3", 0),
        ("vit_b_16", "heads.head", 0),
        ("googlenet", "fc", 0),
        ("squeezenet1_0", "", 0),
    ],
)
def test_taps_of_other_networks_of_torchvision(name, classifier, stages):
    spec = torchvision_model(name)
    found = shapes(spec, (3, 224, 224), outputs=5)
    assert spec.classifier == classifier
    assert [tap for tap in found if tap.startswith("stage")] == [
        f"stage{k}" for k in range(1, stages + 1)
    ]
    sides = [found[f"stage{k}"][-1] for k in range(1, stages + 1)]
    assert sides == [56, 28, 14, 7][4 - stages :]
    assert len(found.get("pooled", (0,))) == 1
    assert ("pooled" in found) == bool(classifier)


def test_auxiliary_classifiers_are_off():
    """In training, too, the answer is one tensor of logits."""
    model = torchvision_model("googlenet").build((3, 64, 64), 4)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 4)


def test_a_transformer_is_built_for_the_size_of_the_images():
    found = shapes(torchvision_model("vit_b_16"), (3, 32, 32))
    assert found == {"pooled": (768,)}
    with pytest.raises(ValueError, match=r"vit_b_16 reads square images.*32, 48"):
        torchvision_model("vit_b_16").build((3, 32, 48), 10)
    with pytest.raises(ValueError, match="vit_b_16 cannot be built for inputs of"):
        torchvision_model("vit_b_16").build((3, 33, 33), 10)


def test_torchvision_reads_three_channels():
    with pytest.raises(ValueError, match=r"resnet18 reads images of 3 channels.*1, 28"):
        torchvision_model("resnet18").build((1, 28, 28), 10)
    with pytest.raises(ValueError, match=r"resnet18 needs images .*\(64,\)"):
        torchvision_model("resnet18").build((64,), 10)


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(UserError, match=r"unknown torchvision model 'resnet35'.*net34"):
        torchvision_model("resnet35")
    with pytest.raises(
        UserError, match="unknown torchvision model 'fasterrcnn_resnet5"
    ):
        torchvision_model("fasterrcnn_resnet50_fpn")  # no classifier


def test_looking_draws_no_random_numbers_and_makes_no_data():
    torch.manual_seed(0)
    expected = torch.rand(3)
    for name in ("resnet18", "regnet_y_400mf"):
        torch.manual_seed(0)
        spec = torchvision_model(name)
        with torch.device("meta"):
            model = spec.build((3, 64, 64), 10)
        assert all(p.is_meta for p in (*model.parameters(), *model.buffers()))
        assert torch.equal(torch.rand(3), expected)


def test_the_version_is_the_librarys():
    version = torchvision("version").__version__
    spec = torchvision_model("resnet18")
    assert spec.version
    assert version.startswith(spec.version)
    assert "+" not in spec.version
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301 (our own bytes)
    assert again.build.keywords == {"name": "resnet18"}


def overwritten(spec, side):
    """Paths of declared taps whose value at the end is not what it was when tapped."""
    torch.manual_seed(0)
    model = spec.build((3, side, side), 10).eval()
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
    with torch.no_grad():
        model(torch.randn(2, 3, side, side))
    assert set(kept) == set(spec.taps.values())
    return [path for path, (now, then) in kept.items() if not torch.equal(now, then)]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "shufflenet_v2_x0_5"])
def test_taps_of_torchvision_are_not_overwritten(name):
    assert overwritten(torchvision_model(name), 64) == []


@needs_timm
@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet18", 64), ("mobilenetv2_050", 64), ("vit_tiny_patch16_224", 32)],
)
def test_taps_of_timm_are_not_overwritten(name, side):
    assert overwritten(timm_model(name), side) == []


@needs_timm
@pytest.mark.parametrize(
    ("name", "stem", "stages"),
    [
        ("resnet18", (64, 112, 112), [(64, 56, 56), (512, 7, 7)]),
        ("mobilenetv2_100", (16, 112, 112), [(24, 56, 56), (320, 7, 7)]),
        ("convnext_atto", None, [(40, 56, 56), (320, 7, 7)]),
        ("vit_tiny_patch16_224", None, [(197, 192), (197, 192)]),
        ("swin_tiny_patch4_window7_224", None, []),  # channels come last
    ],
)
def test_taps_of_timm_are_the_features_it_lists(name, stem, stages):
    spec = timm_model(name)
    found = shapes(spec, (3, 224, 224))
    assert spec.name == f"timm:{name}"
    assert found.get("stem") == stem
    taps = [tap for tap in found if tap.startswith("stage")]
    assert len(taps) == {0: 0, 2: 12 if name.startswith("vit") else 4}[len(stages)]
    assert [found[tap] for tap in (*taps[:1], *taps[-1:])] == stages
    assert len(found["pooled"]) == 1


@needs_timm
def test_timm_takes_any_channels_and_builds_transformers_for_the_size():
    assert shapes(timm_model("resnet18"), (1, 28, 28))["pooled"] == (512,)
    found = shapes(timm_model("vit_tiny_patch16_224"), (3, 32, 32))
    assert found["stage1"] == (5, 192)
    with pytest.raises(ValueError, match=r"resnet18 needs images"):
        timm_model("resnet18").build((64,), 10)


@needs_timm
def test_two_classifiers_are_none():
    """A distilled transformer answers with the mean of two."""
    spec = timm_model("deit_tiny_distilled_patch16_224")
    assert spec.classifier == ""
    assert "pooled" not in spec.taps


@needs_timm
def test_a_timm_model_is_built_untrained_and_picklable():
    import timm

    spec = timm_model("resnet18")
    assert spec.version == timm.__version__
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301 (our own bytes)
    model = again.build((3, 32, 32), 7)
    assert isinstance(model.get_submodule(spec.classifier), nn.Linear)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@needs_timm
@pytest.mark.parametrize("name", ["resnet18x", "hf-hub:timm/resnet18", ""])
def test_an_unknown_name_of_timm_is_a_users_mistake(name):
    with pytest.raises(UserError, match=f"unknown timm model '{name}'"):
        timm_model(name)


def test_without_timm_the_user_is_told_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(external, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'kdbench\[timm\]'"):
        timm_model("resnet18")
