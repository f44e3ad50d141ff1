"""cat_kd: class activation maps by plain loops, pooled, normalised and compared."""

from dataclasses import replace

import kdbench_feature_matching.cat_kd
import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching.cat_kd import ClassAttention
from kdbench_feature_matching.heads import MAPS
from torch import nn

from kdbench import Tapped, UserError
from kdbench.models.pairs import PAIRS
from kdbench.testing import mutated


def prepared(given, student=(3, 4, 4), teacher=(6, 8, 8), **options):
    torch.manual_seed(0)
    batch = given.batch(
        student_shapes={MAPS: student}, teacher_shapes={MAPS: teacher}, **options
    )
    own, frozen = nn.Linear(student[0], 5), nn.Linear(teacher[0], 5)
    return replace(
        batch,
        students=(replace(batch.student, classifier=own),),
        teachers=(replace(batch.teacher, classifier=frozen.requires_grad_(False)),),
    )


def seen(maps, weight, side, normalised, binarised=False):
    """One item's classes: lists of side * side numbers."""
    step, classes = maps.shape[1] // side, []
    for row in weight:
        active = sum(w * m for w, m in zip(row, maps, strict=True))
        if binarised:
            mean = sum(abs(x) for x in active.flatten()) / active.numel()
            active = (active > mean).double()
        blocks = [
            active[i : i + step, j : j + step].sum() / step**2
            for i in range(0, maps.shape[1], step)
            for j in range(0, maps.shape[2], step)
        ]
        length = torch.sqrt(sum(x * x for x in blocks)) if normalised else 1.0
        classes += [x / length for x in blocks]
    return classes


def reference(maps, weight, maps_t, weight_t, side, normalised, binarised):
    total = 0.0
    for own, other in zip(maps, maps_t, strict=True):
        a = seen(own, weight, side, normalised)
        b = seen(other, weight_t, side, normalised, binarised)
        total = total + sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
    return total / len(maps)


def both(
    module, given, *, side=2, normalised=True, binarised=False, items=2, classes=4
):
    teacher = given.normal(items, 3, 4, 4).detach(), given.normal(classes, 3).detach()

    def fast(maps, weight):
        other = [x.to(maps.dtype) for x in teacher]
        own = module.attention(maps, weight, side)
        other = module.attention(*other, side, binarised)
        return module.attention_loss(own, other, normalised)

    def slow(maps, weight):
        return reference(maps, weight, *teacher, side, normalised, binarised)

    return fast, slow, given.normal(items, 2, 4, 4), given.normal(classes, 2)


@pytest.mark.parametrize(
    ("side", "normalised"), [(1, False), (2, False), (2, True), (4, True)]
)
@pytest.mark.parametrize("binarised", [True, False])
def test_matches_the_definition(given, assert_same, side, normalised, binarised):
    options = {"side": side, "normalised": normalised, "binarised": binarised}
    assert_same(*both(kdbench_feature_matching.cat_kd, given, **options))


@pytest.mark.parametrize(("items", "classes"), [(1, 2), (1, 1000)])
def test_matches_it_for_other_sizes(given, assert_same, items, classes):
    sizes = {"items": items, "classes": classes}
    assert_same(*both(kdbench_feature_matching.cat_kd, given, **sizes))


@pytest.mark.parametrize(
    ("right", "wrong", "options"),
    [
        ("unit(student, dim=2), unit(teacher, dim=2)", "student, teacher", {}),
        ("unit(student, dim=2), unit", "unit(student, dim=1), unit", {}),
        ("active.abs().mean", "active.mean", {"binarised": True, "normalised": False}),
        ("weight[:, :, None, None])", "weight.abs()[:, :, None, None])", {}),
    ],
)
def test_mistakes_are_noticed(given, assert_same, right, wrong, options):
    module = mutated(kdbench_feature_matching.cat_kd, right, wrong)
    with pytest.raises(AssertionError):
        assert_same(*both(module, given, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1, 1e3])
def test_trains_the_students_maps_and_classifier(given, assert_trains, dtype, scale):
    batch = prepared(given, dtype=dtype, scale=scale)
    learns = (*given.students, batch.student.classifier.weight)
    assert_trains(ClassAttention(), batch, learns=learns)
    assert batch.teacher.classifier.weight.grad is None


@pytest.mark.parametrize("binarised", [True, False])
def test_weights_scale_their_own_term(given, binarised):
    batch = prepared(given)
    student, teacher = batch.student, batch.teacher
    wanted = reference(
        student.features[MAPS].double(),
        student.classifier.weight.double(),
        teacher.features[MAPS].double(),
        teacher.classifier.weight.double(),
        2,
        False,
        binarised,
    )
    options = {"normalised": False, "binarised": binarised}
    terms = ClassAttention(**options, ce_weight=2).loss(batch)
    torch.testing.assert_close(
        terms["attention"].double(), 400 * wanted, rtol=1e-5, atol=0
    )
    ce = F.cross_entropy(student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 2 * ce)


def test_dark_classes_stay_finite(given):
    batch = prepared(given)
    with torch.no_grad():
        batch.student.classifier.weight[1] = 0
        batch.teacher.features[MAPS].zero_()
    loss = ClassAttention().loss(batch)["attention"]
    loss.backward()
    assert loss.isfinite()
    assert all(t.grad is None or t.grad.isfinite().all() for t in given.students)


def test_authors_settings_are_of_pairs_there_are():
    settings = ClassAttention.presets["authors"]
    assert settings.keys() <= {pair.name for pair in PAIRS}
    assert ClassAttention.configured(settings["vgg13-vgg8"]) == ClassAttention(
        cat_weight=4.5, resolution=2, normalised=False
    )


def test_unsupported_pairs_say_why():
    def tapped(maps, head=None):
        shapes, paths = {MAPS: maps, "pooled": maps[:1]}, {"pooled": "0:input"}
        return Tapped(
            "net", shapes, nn.Sequential(head or nn.Linear(6, 5)), paths=paths
        )

    supports, net = ClassAttention().supports, tapped((6, 4, 4))
    assert supports(net, net) is None
    for shape in ((6,), (6, 1, 1)):
        for pair in ((net, tapped(shape)), (tapped(shape), net)):
            assert supports(*pair) == f"net classifies {shape}, which has no positions"
    assert supports(net, tapped((6, 4, 4), nn.ReLU())) == "net has no linear classifier"
    assert supports(net, None) == "there is no teacher"


@pytest.mark.parametrize(
    "values", [{"resolution": 1}, {"resolution": 0, "normalised": False}]
)
def test_refuses_a_resolution_without_positions(values):
    with pytest.raises(UserError, match="resolution must be >="):
        ClassAttention.configured(values)
