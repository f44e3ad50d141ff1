"""Calibration against scikit-learn, torchmetrics and temperatures that are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from kdbench.engine.feed import Feed
from kdbench.finishing import seen
from kdbench.measure.calibration import BINS, ece, reliability, temperature
from kdbench.records import Recipe
from kdbench.vision import torchvision


def torchmetrics_ece(logits, targets):
    torchvision("transforms")  # torchmetrics imports it
    from torchmetrics.functional.classification import multiclass_calibration_error

    found = multiclass_calibration_error(
        logits.softmax(1), targets, logits.shape[1], n_bins=15, norm="l1"
    )
    return 100 * found.item()


def drawn(items, classes=5, spread=2.0):
    """Logits of which the labels are drawn: perfectly calibrated at T = 1."""
    generator = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(items, classes, generator=generator).double()
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits, targets


def test_nll_equals_scikit_learn(case, measured):
    expected = log_loss(case.targets, case.logits.double().softmax(1))
    assert measured(case).numbers["nll"] == pytest.approx(expected, rel=1e-9)


def test_ece_equals_torchmetrics(case, measured):
    expected = torchmetrics_ece(case.logits, case.targets)
    assert measured(case).numbers["ece"] == pytest.approx(expected, rel=1e-5)
    assert expected > 5


def test_bins_are_closed_on_the_right():
    """A confidence of 1/3 = 5/15 belongs to the fifth bin, 1 to the last."""
    logits = torch.zeros(2, 3)
    logits[1, 0] = 1000
    found = reliability(logits, torch.tensor([0, 0]))
    filled = [number for number, many in enumerate(found["count"], 1) if many]
    assert filled == [5, 15]


def test_reliability_by_hand():
    """Of four items at 0.9 three are right, one at 0.55 is wrong."""
    sure, unsure = (torch.tensor([p, 1 - p]).log() for p in (0.9, 0.55))
    logits = torch.stack([sure] * 4 + [unsure])
    targets = torch.tensor([0, 0, 0, 1, 1])
    found = reliability(logits, targets)
    assert [len(values) for values in found.values()] == [BINS] * 3
    assert found["count"][13] == 4
    assert found["confidence"][13] == pytest.approx(90, rel=1e-6)
    assert found["accuracy"][13] == 75
    assert found["accuracy"][8] == 0
    assert found["accuracy"][0] is None
    assert found["confidence"][0] is None
    assert sum(found["count"]) == 5
    assert ece(logits, targets) == pytest.approx(0.8 * 15 + 0.2 * 55, rel=1e-6)


def test_lists_go_with_the_number(case, measured):
    found = measured(case)
    count, confidence, accuracy = (
        found.lists[f"calibration_{part}"]
        for part in ("count", "confidence", "accuracy")
    )
    error = sum(
        n * abs(a - c) for n, a, c in zip(count, accuracy, confidence, strict=True) if n
    )
    assert error / 333 == pytest.approx(found.numbers["ece"])


def test_a_known_temperature_is_found():
    logits, targets = drawn(40_000)
    assert temperature(2.5 * logits, targets) == pytest.approx(2.5, rel=0.02)
    assert temperature(logits / 4, targets) == pytest.approx(0.25, rel=0.02)
    one = temperature(logits, targets)
    assert temperature(2.5 * logits, targets) == pytest.approx(2.5 * one, rel=1e-6)


def test_the_temperature_has_the_least_nll():
    logits, targets = drawn(500)
    logits = 3 * logits + torch.randn(
        500, 5, generator=torch.Generator().manual_seed(1)
    )

    def loss(scale):
        return log_loss(targets, (logits / scale).softmax(1))

    least = minimize_scalar(loss, bounds=(0.1, 20), options={"xatol": 1e-8})
    assert temperature(logits, targets) == pytest.approx(least.x, rel=1e-4)


def test_no_temperature_where_none_is_best():
    sure = torch.eye(4)
    assert temperature(sure, torch.arange(4)) is None  # all right: T -> 0
    assert temperature(-sure, torch.arange(4)) is None  # all wrong: T -> infinity


def test_scaling_is_fitted_on_validation_and_measured_on_the_test_set(
    finished, measured
):
    logits, targets = drawn(40_000)
    test, held_out = slice(0, 20_000), slice(20_000, None)
    case = finished(
        4 * logits[test],
        targets[test],
        validation_logits=4 * logits[held_out],
        validation_targets=targets[held_out],
    )
    found = measured(case).numbers
    fitted = temperature(4 * logits[held_out], targets[held_out])
    assert found["temperature_scaled"] == fitted
    assert fitted != temperature(4 * logits[test], targets[test])
    expected = torchmetrics_ece(4 * logits[test] / fitted, targets[test])
    assert found["ece_scaled"] == pytest.approx(expected, rel=1e-5)
    assert found["ece_scaled"] < 2 < 10 < found["ece"]


def test_without_a_validation_split_scaling_is_null(case, measured):
    found = measured(case).numbers
    assert found["ece_scaled"] is found["temperature_scaled"] is None


def test_what_gives_no_probabilities_has_no_calibration(case, finished, measured):
    held_out = {"validation_logits": case.logits, "validation_targets": case.targets}
    found = measured(
        finished(case.logits, case.targets, probabilities=False, **held_out)
    )
    for name in ("nll", "ece", "ece_scaled", "temperature_scaled"):
        assert found.numbers[name] is None
    assert set(found.lists) == {"per_class_top1"}
    assert found.numbers["top1"] is not None


def test_a_model_says_whether_it_gives_probabilities(host):
    dataset = host.dataset("digits")
    feed = Feed(
        dataset.load(None, False), dataset.task, Recipe(), 0, torch.device("cpu")
    )
    model = host.model("mlp_bn_8_8")
    other = replace(model, probabilities=False)
    module = dataset.build(model)
    for student, teacher in product((model, other), repeat=2):
        found = seen(student, module, dataset, feed, (teacher, module), None)
        assert found.probabilities is student.probabilities
        assert found.teacher_probabilities is teacher.probabilities
    assert seen(model, module, dataset, feed, None, None).teacher_probabilities


def test_a_run_with_a_validation_split_is_scaled(run_digits, tmp_path):
    chosen = {"pairs": ["digits-mlp"], "strategies": ["scratch"], "epochs": 1}
    for share in (0.0, 0.1):
        _, records = run_digits(tmp_path / str(share), validation=share, **chosen)
        record = records["digits-mlp/scratch/0"]
        known = record.measures["ece_scaled"], record.measures["temperature_scaled"]
        if share:
            assert min(known) > 0
        else:
            assert known == (None, None)
        assert sum(record.lists["calibration_count"]) == record.test_items
        assert len(record.lists["per_class_top1"]) == 10
