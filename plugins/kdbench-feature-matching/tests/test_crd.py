"""crd: equations 15 to 19 with plain loops; the memory, Z and the negatives."""

import math
from dataclasses import replace

import kdbench_feature_matching.crd
import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching.crd import ContrastiveDistillation, Lookup, Memory
from torch import nn

from kdbench import Tapped, UserError
from kdbench.testing import mutated

STUDENT, TEACHER = {"pooled": (6,)}, {"pooled": (9,)}
TARGETS = torch.tensor([0, 2, 1, 0, 3, 2, 2, 0, 1, 3, 0])
FEW = ContrastiveDistillation(negatives=7, dim=5)


def prepared(given, strategy=FEW, targets=TARGETS, **options):
    logits = {"logits": (4,)}
    sides = [Tapped("net", {**s, **logits}, nn.Identity()) for s in (STUDENT, TEACHER)]
    torch.manual_seed(0)
    adapters = strategy.adapters(replace(sides[0], targets=targets), sides[1])
    batch = given.batch(
        student_shapes=STUDENT, teacher_shapes=TEACHER, adapters=adapters, **options
    )
    index = torch.tensor([8, 1, 4, 0])[: len(batch.index)]
    return replace(batch, index=index, targets=TARGETS[index])


def embedding(embed, feature):
    rows = zip(embed.weight, embed.bias, strict=True)
    e = [sum(w * x for w, x in zip(r, feature, strict=True)) + b for r, b in rows]
    length = torch.sqrt(sum(x * x for x in e))
    return [x / length for x in e]


def reference(memory, features, seen, temperature, z=(None, None)):
    """Both sides' NCE, summed."""
    items, total = memory.past.shape[1], 0.0
    for side in range(2):
        exp = []
        for feature, others in zip(features[side], seen, strict=True):
            e = embedding(memory.embeds[side], feature)
            rows = [memory.past[1 - side, k] for k in others]
            dots = [sum(x * y for x, y in zip(e, m, strict=True)) for m in rows]
            exp.append([torch.exp(dot / temperature) for dot in dots])
        mean = sum(x.detach() for row in exp for x in row) / seen.numel()
        constant = items * mean if z[side] is None else z[side]
        noise = (seen.shape[1] - 1) / items
        for positive, *negatives in exp:
            p = positive / constant
            total = total - torch.log(p / (p + noise + 1e-7)) / len(exp)
            for q in negatives:
                h = noise / (q / constant + noise + 1e-7)
                total = total - torch.log(h) / len(exp)
    return total


def both(module, given, *, items=4, temperature=0.07, z=None, times=1, copies=1):
    """The fast and the slow loss as functions of the two sides' features."""
    targets = TARGETS.repeat(copies)
    memory = prepared(given, items=items, targets=targets).adapters.double()
    if z is not None:
        memory.log_z.copy_(torch.tensor(z).log())
    twin = module.Memory((6, 9), targets, 4, 5)
    seen = torch.tensor([[8, 1, 3, 3, 0], [1, 0, 8, 2, 4], [4, 0, 1, 2, 3]])[:items]
    others = seen[:, 1:] + len(targets) - len(TARGETS)
    seen = torch.cat([seen[:, :1], *[others] * times], 1)  # a few draws or many

    def fast(student, teacher):
        twin.load_state_dict(memory.state_dict())
        own = twin.to(student.dtype)
        return own.contrast(own((student, teacher)), seen, temperature).sum()

    def slow(student, teacher):
        known = memory.log_z.exp() if z is not None else (None, None)
        return reference(memory, (student, teacher), seen, temperature, known)

    return fast, slow, given.normal(items, 6), given.normal(items, 9)


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("z", [None, (30.0, 2.0)], ids=str)
@pytest.mark.parametrize(
    "draws",
    [
        {"temperature": 0.07},
        {"temperature": 1.0},
        {"times": 3},  # more negatives than there are items
        {"copies": 10},  # so few that they are looked up
    ],
    ids=str,
)
def test_matches_the_definition(given, assert_same, items, z, draws):
    assert_same(*both(kdbench_feature_matching.crd, given, items=items, z=z, **draws))


def test_few_rows_are_looked_up_and_their_gradient_is_right(given, monkeypatch):
    q, memory = given.normal(4, 5).requires_grad_(), given.normal(110, 5)
    seen = torch.randint(110, (4, 6), generator=torch.Generator().manual_seed(0))
    seen[:, 2] = seen[:, 1]  # drawn twice
    assert torch.autograd.gradcheck(lambda q: Lookup.apply(q, memory, seen), q)
    torch.testing.assert_close(
        Lookup.apply(q, memory, seen), (q @ memory.mT).gather(1, seen)
    )
    called, real = [], Lookup.apply
    monkeypatch.setattr(Lookup, "apply", lambda *a: called.append(a) or real(*a))
    fast, _, *features = both(kdbench_feature_matching.crd, given, items=3, copies=10)
    fast(*features)
    assert len(called) == 2


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("e.flip(0) / temperature", "e / temperature"),
        ("- positive)", "+ positive)"),
        ("math.log(noise + EPS)", "math.log(2 * noise + EPS)"),
        ("math.log(seen.numel() / items)", "math.log(seen.numel() * items)"),
        ("e.flip(0) / temperature", "e.flip(0)"),
        ("above.sum(dim=2", "above.mean(dim=2"),
        ("positive = log_ratio.gather", "positive = -log_ratio.gather"),
    ],
)
@pytest.mark.parametrize("draws", [{}, {"times": 3}, {"copies": 10}], ids=str)
def test_mistakes_are_noticed(given, assert_same, right, wrong, draws):
    module = mutated(kdbench_feature_matching.crd, right, wrong)
    with pytest.raises(AssertionError):
        assert_same(*both(module, given, items=3, **draws))


def test_negatives_are_spread_evenly_over_the_other_classes(given):
    memory = prepared(given).adapters
    targets = torch.arange(4)
    drawn = memory.negatives(targets, 20000, given.generator)
    for target, row in zip(targets, drawn, strict=True):
        counts = torch.bincount(row, minlength=len(TARGETS))
        other = target != TARGETS
        assert counts[~other].sum() == 0
        expected = 20000 / int(other.sum())
        assert (counts[other] - expected).abs().max() < 5 * math.sqrt(expected)


def test_memory_moves_halfway_and_z_stays(given):
    batch = prepared(given)
    memory = batch.adapters
    before = memory.past.clone()
    torch.testing.assert_close(before.norm(dim=2), torch.ones(2, len(TARGETS)))
    features = batch.student.features["pooled"], batch.teacher.features["pooled"]
    e = memory(features).detach()
    FEW.loss(batch)["contrast"].backward()  # after the memory was written to
    halfway = F.normalize(before[:, batch.index] + e, dim=2)
    torch.testing.assert_close(memory.past[:, batch.index], halfway)
    rest = [k for k in range(len(TARGETS)) if k not in batch.index]
    assert torch.equal(memory.past[:, rest], before[:, rest])
    z = memory.log_z.clone()
    assert z.isfinite().all()
    FEW.loss(batch)
    assert torch.equal(memory.log_z, z)


def test_continues_exactly_from_its_state(given):
    batch = prepared(given)
    FEW.loss(batch)
    twin = Memory((6, 9), TARGETS, 4, 5)
    twin.load_state_dict(batch.adapters.state_dict())
    values = []
    for adapters in (batch.adapters, twin):
        given.generator.manual_seed(3)
        values.append(FEW.loss(replace(batch, adapters=adapters))["contrast"])
    assert torch.equal(*values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1, 1e3])
def test_trains_student_and_embeddings(given, assert_trains, dtype, scale):
    assert_trains(FEW, prepared(given, dtype=dtype, scale=scale))


def test_defaults(given):
    strategy = ContrastiveDistillation()
    assert (strategy.negatives, strategy.dim, strategy.temperature) == (
        16384,
        128,
        0.07,
    )
    batch = prepared(given)
    values = []
    for weight in (0.8, 2.0):
        batch.adapters.load_state_dict(prepared(given).adapters.state_dict())
        given.generator.manual_seed(3)
        terms = replace(FEW, crd_weight=weight, ce_weight=3.0).loss(batch)
        values.append(terms["contrast"] / weight)
    torch.testing.assert_close(*values)
    assert (strategy.ce_weight, strategy.crd_weight) == (1.0, 0.8)
    ce = F.cross_entropy(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 3 * ce)


@pytest.mark.parametrize(
    ("name", "value"), [("negatives", 0), ("dim", 0), ("momentum", 1), ("momentum", -1)]
)
def test_refuses(name, value):
    with pytest.raises(UserError, match=f"{name} must be"):
        ContrastiveDistillation.configured({name: value})
