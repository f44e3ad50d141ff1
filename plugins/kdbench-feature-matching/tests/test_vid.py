"""vid: the normal log-density with learned variances, from the paper."""

import math

import kdbench_feature_matching.vid as module
import pytest
import torch
from kdbench_feature_matching.variational import Guess
from kdbench_feature_matching.vid import VariationalInformation, surprise
from torch import nn

from kdbench import Tapped, UserError
from kdbench.testing import mutated

STUDENT = {"stage1": (3, 4, 4), "stage2": (2, 2, 2)}
TEACHER = {"stage1": (4, 2, 2), "stage2": (3, 2, 2)}
DENSE = {"stage1": (6,), "stage2": (5,)}


def tapped(name="net", shapes=STUDENT):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def prepared(given, student=STUDENT, teacher=TEACHER, strategy=None, **options):
    torch.manual_seed(0)
    make = (strategy or VariationalInformation()).adapters
    adapters = make(tapped(shapes=student), tapped(shapes=teacher))
    return given.batch(
        student_shapes=student, teacher_shapes=teacher, adapters=adapters, **options
    )


def reference(mean, spread, teacher):
    """From the parameter behind the variance, element by element."""
    total = 0
    for b in range(len(mean)):
        for c in range(mean.shape[1]):
            variance = torch.log(1 + torch.exp(spread[c])) + 1e-5
            pairs = zip(mean[b, c].flatten(), teacher[b, c].flatten(), strict=True)
            for m, t in pairs:
                total = total + ((m - t) ** 2 / variance + torch.log(variance)) / 2
    return total / mean.numel()


def compare(given, assert_same, source, shape=(2, 3, 2, 2)):
    teacher = given.normal(*shape).detach()

    def fast(mean, spread):
        variance = nn.functional.softplus(spread) + 1e-5
        return source.surprise(teacher.to(mean.dtype), mean, variance)

    inputs = given.normal(*shape), given.normal(shape[1])
    assert_same(fast, lambda m, v: reference(m, v, teacher), *inputs)


@pytest.mark.parametrize("shape", [(1, 2), (3, 4), (2, 3, 2, 2)], ids=str)
def test_matches_the_definition(given, assert_same, shape):
    compare(given, assert_same, module, shape)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("+ variance.log()", "- variance.log()"),
        ("0.5 * (error", "(error"),
        ("len(variance) / gap.numel()", "1 / len(gap)"),
        ("error / variance", "error / variance.square()"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new):
    with pytest.raises(AssertionError):
        compare(given, assert_same, mutated(module, old, new), (3, 3, 2, 2))


@pytest.mark.parametrize("shapes", [(STUDENT, TEACHER), (DENSE, DENSE)])
def test_loss_by_hand_from_the_adapters_weights(given, shapes):
    """Pooled to the smaller side, through three layers, all stages added up."""
    batch = prepared(given, *shapes)
    total = 0
    for k, guess in zip(shapes[0], batch.adapters, strict=True):
        x, teacher = batch.student.features[k], batch.teacher.features[k]
        if x.shape[2:] != teacher.shape[2:]:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
        for n, layer in enumerate((guess.mean[0], guess.mean[2], guess.mean[4])):
            x = x.clamp(min=0) if n else x
            x = torch.einsum("oc,bc...->bo...", layer.weight.flatten(1), x)
        total = total + reference(x, guess.spread, teacher)
    terms = VariationalInformation(ce_weight=3, vid_weight=2).loss(batch)
    torch.testing.assert_close(terms["information"], 2 * total)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 3 * ce)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", [(STUDENT, TEACHER), (DENSE, DENSE)])
@pytest.mark.parametrize("items", [1, 4])
def test_trains_student_means_and_variances(given, assert_trains, dtype, shapes, items):
    batch = prepared(given, *shapes, items=items, dtype=dtype)
    assert_trains(VariationalInformation(), batch)


@pytest.mark.parametrize("value", [1e-3, 5.0, 200.0])
def test_variances_start_as_told_and_are_learned(given, value):
    strategy = VariationalInformation(initial_variance=value)
    batch = prepared(given, strategy=strategy)
    _, variance = batch.adapters[0](batch.student.features["stage1"])
    torch.testing.assert_close(variance, torch.full((4,), value), rtol=1e-3, atol=0)
    names = [name for name, p in batch.adapters.named_parameters() if p.requires_grad]
    assert {"0.spread", "1.spread"} < set(names)
    assert VariationalInformation().initial_variance == 5


def test_the_variance_learns_the_error(given):
    """With the mean held, the best variance of a channel is its mean square error."""
    guess = Guess((2,), (2,), 5.0)
    teacher = given.normal(500, 2).detach().float() * torch.tensor([0.5, 3.0])
    optimiser = torch.optim.Adam([guess.spread], lr=0.3)
    for _ in range(80):
        _, variance = guess(teacher)
        optimiser.zero_grad()
        surprise(teacher, torch.zeros_like(teacher), variance).backward()
        optimiser.step()
    wanted = teacher.square().mean(dim=0)
    torch.testing.assert_close(guess(teacher)[1], wanted, rtol=0.05, atol=0)


def test_extreme_values_stay_finite(given, assert_trains):
    assert_trains(VariationalInformation(), prepared(given, scale=1e3))
    assert math.isfinite(Guess((2,), (3,), 1e-4).spread[0].item())


def test_maps_and_vectors_do_not_mix():
    reason = VariationalInformation().supports(tapped(), tapped("mlp", DENSE))
    assert "must both be maps (C, H, W) or both vectors (D,)" in reason
    assert VariationalInformation().supports(tapped(), tapped("t", TEACHER)) is None


def test_refuses_a_variance_below_the_least():
    with pytest.raises(UserError, match="initial_variance must be > 1e-05"):
        VariationalInformation.configured({"initial_variance": 0})
