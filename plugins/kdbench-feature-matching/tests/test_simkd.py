"""simkd: the projector by hand, and what is deployed in place of the student."""

import copy

import kdbench_feature_matching.simkd
import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching.heads import MAPS
from kdbench_feature_matching.simkd import ReusedClassifier, bottleneck
from torch import nn

from kdbench import Tapped, UserError
from kdbench.testing import mutated


class Net(nn.Module):
    """Maps (or vectors), their average, and a linear classifier."""

    def __init__(self, channels, stride=1, maps=True):
        super().__init__()
        self.body = (
            nn.Conv2d(3, channels, 3, stride, 1) if maps else nn.Linear(4, channels)
        )
        self.pool = nn.AdaptiveAvgPool2d(1) if maps else nn.Identity()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels, 5))

    def forward(self, inputs):
        return self.head(self.pool(self.body(inputs).relu()))


def tapped(model, maps, **changes):
    shapes = {MAPS: maps, "pooled": maps[:1], "logits": (5,)} | changes
    paths = {MAPS: "pool:input", "pooled": "head.1:input"}
    return Tapped("net", shapes, model, paths=paths)


def prepared(given, student, teacher, **options):
    """A batch, and the student's network with the adapters as built for them."""
    torch.manual_seed(0)
    nets = [Net(s[0], maps=len(s) == 3) for s in (student, teacher)]
    sides = [tapped(n, s) for n, s in zip(nets, (student, teacher), strict=True)]
    adapters = ReusedClassifier().adapters(sides[0], sides[1])
    batch = given.batch(
        student_shapes={MAPS: student},
        teacher_shapes={MAPS: teacher},
        adapters=adapters,
        **options,
    )
    return batch, nets


def pooled(maps, side):
    """(B, C, side, side) by plain loops over the blocks."""
    step = maps.shape[2] // side
    rows = [
        [maps[:, :, i : i + step, j : j + step].sum((2, 3)) / step**2]
        for i in range(0, maps.shape[2], step)
        for j in range(0, maps.shape[3], step)
    ]
    return torch.stack([r[0] for r in rows], dim=2).unflatten(2, (side, side))


def convolved(maps, weight):
    """A padded convolution, position by position."""
    pad, size = weight.shape[2] // 2, maps.shape[2]
    wide = F.pad(maps, (pad,) * 4)
    total = 0.0
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            part = wide[:, :, i : i + size, j : j + size]
            total = total + torch.einsum("oc,bchw->bohw", weight[:, :, i, j], part)
    return total


def reference(project, student, teacher):
    side = min(student.shape[2], teacher.shape[2])
    x = pooled(student, side)
    for k in range(0, len(project), 3):
        x = convolved(x, project[k].weight.double())
        axes = (0, 2, 3)
        mean, var = x.mean(axes, keepdim=True), x.var(axes, False, keepdim=True)
        x = ((x - mean) / torch.sqrt(var + 1e-5)).clamp(min=0)
    return (x - pooled(teacher, side)).square().sum() / x.numel()


SIZES = [((2, 4, 4), (6, 4, 4)), ((2, 4, 4), (6, 2, 2)), ((2, 2, 2), (6, 4, 4))]


def both(module, given, student, teacher):
    batch, nets = prepared(given, student, teacher)
    sides = [tapped(n, s) for n, s in zip(nets, (student, teacher), strict=True)]
    twin = module.Reused(*sides, 2)
    twin.load_state_dict(batch.adapters.state_dict())
    of_teacher = given.normal(4, *teacher).detach()

    def fast(maps):
        own = copy.deepcopy(twin).to(maps.dtype)
        t = module.shrink(of_teacher.to(maps.dtype), maps.shape)
        return F.mse_loss(own(maps), t)

    def slow(maps):
        return reference(batch.adapters.project, maps, of_teacher)

    return fast, slow, given.normal(4, *student)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matches_the_definition(given, assert_same, sizes):
    assert_same(*both(kdbench_feature_matching.simkd, given, *sizes))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("nn.ReLU()]", "nn.Identity()]"),
        ("shrink(maps, self.size) if", "maps[..., :2, :2] if"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, right, wrong):
    module = mutated(kdbench_feature_matching.simkd, right, wrong)
    with pytest.raises(AssertionError):
        assert_same(*both(module, given, *SIZES[1]))


@pytest.mark.parametrize("sizes", [*SIZES, ((4,), (6,))], ids=str)
def test_the_term_is_the_weighted_mean_square(given, sizes):
    batch, _ = prepared(given, *sizes)
    student, teacher = batch.student.features[MAPS], batch.teacher.features[MAPS]
    if len(sizes[0]) == 3:
        wanted = reference(batch.adapters.project, student.double(), teacher.double())
    else:
        project = batch.adapters.project
        wanted = (student @ project.weight.T + project.bias - teacher).square().mean()
    terms = ReusedClassifier(feature_weight=3).loss(batch)
    assert terms.keys() == {"feature"}
    torch.testing.assert_close(terms["feature"], 3 * wanted.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [*SIZES, ((4,), (6,))], ids=str)
def test_trains_student_and_projector_only(given, dtype, sizes):
    batch, _ = prepared(given, *sizes, dtype=dtype)
    ReusedClassifier().loss(batch)["feature"].backward()
    logits, maps = given.students
    assert logits.grad is None  # no label, no student's logits
    learning = [p for p in batch.adapters.parameters() if p.requires_grad]
    for tensor in (maps, *learning):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.count_nonzero() > 0
    assert all(t.grad is None for t in given.teachers)
    frozen = [p for p in batch.adapters.parameters() if not p.requires_grad]
    assert [tuple(p.shape) for p in frozen] == [(5, sizes[1][0]), (5,)]


@pytest.mark.parametrize("sizes", [*SIZES, ((4,), (6,))], ids=str)
def test_deployed_gives_the_teachers_logits_of_what_is_projected(given, sizes):
    batch, (student, teacher) = prepared(given, *sizes)
    reused, size = batch.adapters, sizes[0][1:]
    inputs = torch.randn(4, *((3, *size) if size else (4,)))
    deployed = ReusedClassifier().deployed([student], reused).eval()
    maps = student.body(inputs).relu()
    average = reused(maps).flatten(2).mean(2) if size else reused(maps)
    torch.testing.assert_close(deployed(inputs), teacher.head[1](average))
    twin = copy.deepcopy(deployed)  # has its own hook
    with torch.no_grad():
        student.body.weight.zero_()
    assert not torch.equal(twin(inputs), deployed(inputs))


def test_deployed_shares_the_live_parts_and_drops_the_old_classifier(given):
    batch, (student, teacher) = prepared(given, *SIZES[0])
    body = {p.data_ptr() for p in student.body.parameters()}
    deployed = ReusedClassifier().deployed([student], batch.adapters)
    state = deployed.state_dict()
    tensors = [t for t in state.values() if t.numel()]
    assert len({t.data_ptr() for t in tensors}) == len(tensors)
    assert body < {p.data_ptr() for p in deployed.parameters()}
    assert isinstance(student.head[1], nn.Identity)
    wanted = [*student.body.parameters(), *batch.adapters.project.parameters()]
    wanted += teacher.head.parameters()
    count = sum(p.numel() for p in deployed.parameters())
    assert count == sum(p.numel() for p in wanted)
    own = batch.adapters.classifier.weight
    assert own.data_ptr() != teacher.head[1].weight.data_ptr()


def test_the_projector_is_a_bottleneck():
    shapes = [m.weight.shape for m in bottleneck(8, 12, 3) if isinstance(m, nn.Conv2d)]
    assert shapes == [(4, 8, 1, 1), (4, 4, 3, 3), (12, 4, 1, 1)]
    assert bottleneck(8, 1, 3)[-3].weight.shape == (1, 1, 1, 1)


def test_unsupported_pairs_say_why():
    supports = ReusedClassifier().supports
    net, dense = tapped(Net(6), (6, 4, 4)), tapped(Net(6), (6,))
    assert supports(net, net) is None
    assert supports(dense, dense) is None
    assert "maps to maps or vectors to vectors" in supports(net, dense)
    assert supports(net, None) == "there is no teacher"
    flattened = tapped(Net(6), (6, 4, 4), pooled=(96,))
    assert "no average of its last maps" in supports(net, flattened)


def test_refuses_a_reduction_below_one():
    with pytest.raises(UserError, match="reduction must be >= 1"):
        ReusedClassifier.configured({"reduction": 0})
