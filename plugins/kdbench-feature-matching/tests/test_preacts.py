"""Pre-activations: partners, connectors from their own weights, the norm before one."""

from functools import partial

import pytest
import torch
from kdbench_feature_matching import preacts
from torch import nn

from kdbench import Outputs, Tapped
from kdbench.models.mobilenet import MOBILENETS
from kdbench.models.resnet import RESNETS
from kdbench.models.shufflenet import SHUFFLENETS
from kdbench.models.vgg import VGGS
from kdbench.models.wide_resnet import WIDE_RESNETS

MODELS = [*RESNETS, *WIDE_RESNETS, *VGGS, *MOBILENETS, *SHUFFLENETS]


def tapped(name="net", **shapes):
    return Tapped(name, {"stage1": (1,), **shapes}, nn.Identity())


def test_reasons():
    maps = tapped("maps", preact1=(2, 4, 4), preact2=(3, 2, 2))
    third = tapped("third", preact1=(2, 4, 4), preact2=(3, 2, 2), preact3=(3, 1, 1))
    assert preacts.why_no_preacts(maps, maps) is None
    assert preacts.why_no_preacts(maps, third) is None
    assert preacts.matched(maps, third) == [("preact1",) * 2, ("preact2",) * 2]
    assert "no rule matches" in preacts.why_no_preacts(third, maps)
    assert preacts.why_no_preacts(maps, None) == "there is no teacher"
    reason = preacts.why_no_preacts(maps, tapped("none"))
    assert reason == "none has no pre-activations (preact1, preact2, ...)"
    flat = tapped("flat", preact1=(3,), preact2=(4,))
    assert preacts.why_no_preacts(flat, flat) is None
    reason = preacts.why_no_preacts(flat, maps)
    assert reason.startswith("preact1 of flat and preact1 of maps must both be maps")


@pytest.mark.parametrize("sizes", [((), ()), ((2, 2),) * 2, ((4, 4), (2, 2))], ids=str)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("items", [1, 3])
def test_connectors_by_hand(given, sizes, swap, items):
    """Mix channels at each place, then standardise each over batch and places."""
    s, t = reversed(sizes) if swap else sizes
    sides = tapped(preact1=(2, *s)), tapped(preact1=(3, *t))
    parts = preacts.Connectors(*sides).double()
    own, other = given.normal(items, 2, *s), given.normal(items, 3, *t)
    logits = given.normal(items, 5)
    outputs = (Outputs(logits, {"preact1": x}) for x in (own, other))
    ((connected, target),) = parts(*outputs)

    def small(x):
        if x.ndim < 4:
            return x
        tiles = x.unfold(2, x.shape[2] // 2, x.shape[2] // 2)
        return tiles.unfold(3, x.shape[3] // 2, x.shape[3] // 2).mean(dim=(4, 5))

    weight = parts.connectors[0][0].weight.flatten(1)
    for channel in range(3):
        guess = sum(weight[channel, c] * small(own)[:, c] for c in range(2))
        mean = guess.mean() if items > 1 else 0.0
        spread = (guess - mean).square().mean() if items > 1 else torch.tensor(1.0)
        wanted = (guess - mean) / (spread + 1e-5).sqrt()
        torch.testing.assert_close(connected[:, channel], wanted, check_dtype=False)
    torch.testing.assert_close(target, small(other).detach())
    assert not target.requires_grad


def test_connectors_start_from_the_authors_spread():
    torch.manual_seed(0)
    wide = tapped(preact1=(64, 1, 1))
    weight = preacts.Connectors(wide, wide).connectors[0][0].weight
    assert weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)


def test_the_last_counts_in_full():
    losses = [torch.tensor(x) for x in (8.0, 4.0, 1.0)]
    assert preacts.halving(losses) == 8 / 4 + 4 / 2 + 1


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_the_norm_before_is_the_last_one_that_ran(spec):
    """But for that of a shortcut; half of ShuffleNetV2's channels have another."""
    with torch.device("meta"):
        model = spec.build((3, 64, 64), 10)
        taps, ran, seen = preacts.preacts(spec.taps), [], {}

        def note(tap, _part, args, output=None):
            maps = args[0] if output is None else output
            seen[tap] = tuple(maps.shape[1:]), ran[-1]

        for path, part in model.named_modules():
            if isinstance(part, nn.BatchNorm2d) and "shortcut" not in path:
                part.register_forward_hook(lambda part, *_: ran.append(part))
        for tap, path in taps.items():
            part = model.get_submodule(path.removesuffix(":input"))
            if path.endswith(":input"):
                part.register_forward_pre_hook(partial(note, tap))
            else:
                part.register_forward_hook(partial(note, tap))
        model(torch.zeros(2, 3, 64, 64))
    shapes = {tap: shape for tap, (shape, _) in seen.items()}
    side = Tapped(spec.name, shapes, model, paths=spec.taps)
    for tap in taps:
        found = preacts.norm_before(side, tap)
        assert found is (None if spec.name == "shufflenetv2" else seen[tap][1])
