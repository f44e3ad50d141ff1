"""srrl: features and logits by plain loops; the teacher's classifier stays frozen."""

from dataclasses import replace

import kdbench_feature_matching.srrl
import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching.srrl import SoftmaxRegression
from torch import nn

from kdbench import Outputs, Tapped
from kdbench.testing import mutated

STUDENT, TEACHER = {"pooled": (6,)}, {"pooled": (3,)}
PATHS = {"pooled": "0:input"}


def tapped(shapes, head=None):
    return Tapped("net", shapes, nn.Sequential(head or nn.Linear(3, 5)), paths=PATHS)


def prepared(given, **options):
    torch.manual_seed(0)
    adapters = SoftmaxRegression().adapters(tapped(STUDENT), tapped(TEACHER))
    batch = given.batch(
        student_shapes=STUDENT, teacher_shapes=TEACHER, adapters=adapters, **options
    )
    frozen = nn.Linear(3, 5).requires_grad_(False)
    return replace(batch, teachers=(replace(batch.teacher, classifier=frozen),))


def mean_square(a, b):
    pairs = [p for rows in zip(a, b, strict=True) for p in zip(*rows, strict=True)]
    return sum((x - y) ** 2 for x, y in pairs) / len(pairs)


def linear(layer, row):
    return [
        sum(w * x for w, x in zip(weights, row, strict=True)) + b
        for weights, b in zip(layer.weight, layer.bias, strict=True)
    ]


def reference(feature, of_teacher, classifier, logits):
    own = [linear(classifier, row) for row in feature]
    return mean_square(feature, of_teacher) + 3 * mean_square(own, logits)


def both(module, given, items, classes, scale=1.0):
    classifier = nn.Linear(4, classes).double().requires_grad_(False)
    of_teacher = given.normal(items, 4).detach()
    logits = given.normal(items, classes, scale=scale).detach()

    def fast(feature):
        dtype = feature.dtype
        pooled, head = {"pooled": of_teacher.to(dtype)}, classifier.to(dtype)
        teacher = Outputs(logits.to(dtype), pooled, head)
        matched, regressed = module.regression_losses(feature, teacher)
        return matched + 3 * regressed

    def slow(feature):
        return reference(feature, of_teacher, classifier.double(), logits)

    return fast, slow, given.normal(items, 4)


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize(("classes", "scale"), [(2, 1), (100, 1), (5, 1e3)])
def test_matches_the_definition(given, assert_same, items, classes, scale):
    torch.manual_seed(0)
    assert_same(*both(kdbench_feature_matching.srrl, given, items, classes, scale))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (
            "F.mse_loss(teacher.classifier(feature)",
            "F.l1_loss(teacher.classifier(feature)",
        ),
        ("F.mse_loss(feature", "F.mse_loss(-feature"),
        ("teacher.classifier(feature)", "feature @ teacher.classifier.weight.T"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, right, wrong):
    module = mutated(kdbench_feature_matching.srrl, right, wrong)
    with pytest.raises(AssertionError):
        assert_same(*both(module, given, 4, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_student_and_connector_only(given, assert_trains, dtype):
    batch = prepared(given, dtype=dtype)
    assert_trains(SoftmaxRegression(), batch)
    assert batch.teacher.classifier.weight.grad is None


def test_connector_and_weights_by_hand(given):
    batch = prepared(given, items=8)
    maps = batch.student.features["pooled"] @ batch.adapters[0].weight[:, :, 0, 0].T
    scaled = (maps - maps.mean(0)) / (maps.var(0, unbiased=False) + 1e-5).sqrt()
    feature = scaled.relu()
    teacher = batch.teacher
    logits = feature @ teacher.classifier.weight.T + teacher.classifier.bias
    matched = (feature - teacher.features["pooled"]).square().mean()
    regressed = (logits - teacher.logits).square().mean()
    ce = F.cross_entropy(batch.student.logits, batch.targets)
    wanted = {"ce": ce, "feature": matched, "regression": regressed}
    torch.testing.assert_close(SoftmaxRegression().loss(batch), wanted)
    weights = {"ce_weight": 2, "feature_weight": 3, "regression_weight": 5}
    terms = SoftmaxRegression(**weights).loss(batch)
    torch.testing.assert_close(
        terms, {"ce": 2 * ce, "feature": 3 * matched, "regression": 5 * regressed}
    )


def test_a_batch_of_one_is_finite(given):
    terms = SoftmaxRegression().loss(prepared(given, items=1))
    assert all(value.isfinite() for value in terms.values())


def test_needs_a_linear_classifier_of_the_teacher():
    supports = SoftmaxRegression().supports
    assert supports(tapped(STUDENT), tapped(TEACHER)) is None
    reason = supports(tapped(STUDENT), tapped(TEACHER, nn.Identity()))
    assert reason == "net has no linear classifier"
    assert supports(tapped(STUDENT), None) == "there is no teacher"
