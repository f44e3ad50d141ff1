"""Accuracy and errors against scikit-learn and hand counts; measures in general."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    recall_score,
    top_k_accuracy_score,
)

from kdbench.api import Measure
from kdbench.measure import measure_all
from kdbench.measure.quality import QUALITY, bitmask, correct
from kdbench.tasks import Head, Task

HEADS = Task.several(
    Head(name="kind", task=Task(outputs=3)),
    Head(name="shade", task=Task(outputs=6)),
    Head(name="size", task=Task(kind="regression", outputs=1)),
)


def test_accuracies_equal_scikit_learn(case, measured):
    said = case.logits.argmax(1)
    found = measured(case)
    assert found.numbers["top1"] == pytest.approx(
        100 * accuracy_score(case.targets, said), abs=1e-12
    )
    assert found.numbers["top5"] == pytest.approx(
        100 * top_k_accuracy_score(case.targets, case.logits, k=5), abs=1e-12
    )
    recalls = 100 * recall_score(case.targets, said, average=None)
    assert found.lists["per_class_top1"] == pytest.approx(list(recalls), abs=1e-12)
    assert found.numbers["worst_class"] == pytest.approx(recalls.min(), abs=1e-12)
    assert len(set(recalls)) > 1


@pytest.mark.parametrize(("classes", "there"), [(5, False), (6, True)])
def test_top5_is_for_six_classes_or_more(finished, measured, classes, there):
    case = finished(torch.randn(20, classes), torch.arange(20) % classes)
    assert ("top5" in measured(case).numbers) is there


def test_a_class_without_items_is_null_and_not_the_worst(finished, measured):
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 1])]
    found = measured(finished(logits, torch.tensor([0, 0, 0, 1])))
    assert found.lists["per_class_top1"] == [pytest.approx(200 / 3), 100.0, None]
    assert found.numbers["worst_class"] == pytest.approx(200 / 3)


def test_errors_equal_scikit_learn(finished, measured):
    generator = torch.Generator().manual_seed(0)
    said, truth, teacher = torch.randn(3, 50, 2, generator=generator)
    task = Task(kind="regression", outputs=2)
    found = measured(finished(said, truth, teacher_logits=teacher, task=task))
    assert found.lists == {}
    assert found.numbers == pytest.approx(
        {
            "rmse": mean_squared_error(truth, said) ** 0.5,
            "mae": mean_absolute_error(truth, said),
            "r2": r2_score(truth, said),
            "teacher_rmse": mean_squared_error(teacher, said) ** 0.5,
        }
    )


def test_each_head_has_its_own_measures(finished, measured):
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(50, 10, generator=generator)
    kind = torch.randint(3, (50,), generator=generator)
    shade = torch.randint(6, (50,), generator=generator)
    size = torch.randn(50, generator=generator)
    targets = torch.stack([kind.float(), shade.float(), size], 1)
    held_out = {"validation_logits": said[:20], "validation_targets": targets[:20]}
    teacher = {"teacher_logits": said.flip(0), "task": HEADS}
    found = measured(finished(said, targets, **teacher, **held_out))
    alone = measured(
        finished(
            said[:, 3:9],
            shade,
            teacher_logits=said.flip(0)[:, 3:9],
            validation_logits=said[:20, 3:9],
            validation_targets=shade[:20],
        )
    )
    shades = {f"{name}_shade": value for name, value in alone.numbers.items()}
    assert {k: v for k, v in found.numbers.items() if k.endswith("_shade")} == shades
    assert None not in {shades["nll_shade"], shades["agreement_wrong_shade"]}
    assert found.lists["per_class_top1_shade"] == alone.lists["per_class_top1"]
    assert found.lists["calibration_shade_count"] == alone.lists["calibration_count"]
    assert found.numbers["top1_kind"] == pytest.approx(
        100 * accuracy_score(kind, said[:, :3].argmax(1))
    )
    assert "top5_kind" not in found.numbers
    assert found.numbers["rmse_size"] == pytest.approx(
        mean_squared_error(size, said[:, 9]) ** 0.5
    )
    assert "nll_size" not in found.numbers


def test_a_constant_target_has_no_r2(finished, measured):
    task = Task(kind="regression", outputs=1)
    case = finished(torch.randn(5, 1), torch.ones(5, 1), task=task)
    assert measured(case).numbers["r2"] is None


@pytest.mark.parametrize("items", [0, 1])
@pytest.mark.parametrize("classes", [1, 2, 6])
def test_few_items_and_classes_are_measured_or_null(finished, measured, items, classes):
    logits, targets = torch.zeros(items, classes), torch.zeros(items).long()
    both = {"teacher_logits": logits, "features": lambda: (logits, logits)}
    held_out = {"validation_logits": logits, "validation_targets": targets}
    found = measured(finished(logits, targets, **both, **held_out), "cka").numbers
    assert found["agreement"] == (100.0 if items else None)
    assert found["worst_class"] == (100.0 if items else None)
    expected = np.log(classes) if items else None
    assert found["nll"] == (None if expected is None else pytest.approx(expected))
    assert found["temperature_scaled"] is found["ece_scaled"] is found["cka"] is None


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_stay_finite(case, finished, measured, size):
    logits, teacher = size * case.logits, -size * case.teacher_logits
    held_out = {"validation_logits": logits, "validation_targets": case.targets}
    found = measured(
        finished(logits, case.targets, teacher_logits=teacher, **held_out)
    ).numbers
    assert [name for name, value in found.items() if value is None] == []
    assert found["nll"] > size / 10
    assert found["teacher_kl"] > size / 10


def test_every_measure_of_quality_is_explained():
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()
    assert [m.name for m in QUALITY if f"| `{m.name}` |" not in page] == []


def test_the_bitmask_gives_back_every_item(case):
    right = correct(case.logits, case.targets)
    packed = np.frombuffer(base64.b64decode(bitmask(right)), dtype=np.uint8)
    unpacked = np.unpackbits(packed)[: len(right)].astype(bool)
    assert (unpacked == right.numpy()).all()


def test_a_measure_that_fails_is_null_and_said(case):
    def raises(_finished):
        raise ZeroDivisionError("no")

    common = {"summary": "", "unit": "", "better": "higher"}
    measures = [
        Measure(name="a", compute=raises, **common),
        Measure(name="b", compute=lambda _: float("inf"), **common),
        Measure(name="c", compute=lambda _: None, **common),
        Measure(name="d", compute=lambda _: {"": 1, "q1": 2.5}, **common),
        Measure(name="f", compute=lambda _: "many", **common),
        Measure(name="e", compute=lambda _: 9, scope="model", **common),
    ]
    found = measure_all(measures, "run", case)
    values, problems = found.numbers, found.problems
    nulls = dict.fromkeys("abcf")
    assert values == {**nulls, "d": 1.0, "d_q1": 2.5}
    assert problems[0] == "measure a: ZeroDivisionError: no"
    assert problems[1].startswith("measure f: TypeError")
