"""Quality measures against scikit-learn and hand counts."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
)

from kdbench.api import Finished, Measure
from kdbench.measure import measure_all
from kdbench.measure.quality import QUALITY, bitmask, correct
from kdbench.tasks import Head, Task


def finished(logits, targets, teacher=None, task=None):
    return Finished(
        model=torch.nn.Identity(),
        task=task or Task(outputs=logits.shape[1]),
        device="cpu",
        sample=torch.zeros(1, 1),
        logits=logits,
        targets=targets,
        teacher_logits=teacher,
    )


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(333, 7, generator=generator)
    teacher = torch.randn(333, 7, generator=generator)
    targets = torch.randint(7, (333,), generator=generator)
    return finished(logits, targets, teacher)


def quality(case):
    found = measure_all(QUALITY, "run", case)
    values, problems = found.numbers, found.problems
    assert problems == []
    return values


def test_top1_and_agreement_equal_scikit_learn(case):
    said, teacher = case.logits.argmax(1), case.teacher_logits.argmax(1)
    assert quality(case) == {
        "top1": pytest.approx(100 * accuracy_score(case.targets, said), abs=1e-12),
        "agreement": pytest.approx(100 * accuracy_score(teacher, said), abs=1e-12),
    }
    assert set(quality(finished(case.logits, case.targets))) == {"top1"}


def test_errors_equal_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    said, truth, teacher = torch.randn(3, 50, 2, generator=generator)
    task = Task(kind="regression", outputs=2)
    assert quality(finished(said, truth, teacher, task)) == pytest.approx(
        {
            "rmse": mean_squared_error(truth, said) ** 0.5,
            "mae": mean_absolute_error(truth, said),
            "r2": r2_score(truth, said),
            "teacher_rmse": mean_squared_error(teacher, said) ** 0.5,
        }
    )


def test_each_head_has_its_own_measures():
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(50, 4, generator=generator)
    classes = torch.randint(3, (50,), generator=generator)
    numbers = torch.randn(50, generator=generator)
    task = Task.several(
        Head(name="kind", task=Task(outputs=3)),
        Head(name="size", task=Task(kind="regression", outputs=1)),
    )
    case = finished(said, torch.stack([classes.float(), numbers], 1), None, task)
    assert quality(case) == pytest.approx(
        {
            "top1_kind": 100 * accuracy_score(classes, said[:, :3].argmax(1)),
            "rmse_size": mean_squared_error(numbers, said[:, 3]) ** 0.5,
            "mae_size": mean_absolute_error(numbers, said[:, 3]),
            "r2_size": r2_score(numbers, said[:, 3]),
        }
    )


def test_a_constant_target_has_no_r2():
    task = Task(kind="regression", outputs=1)
    case = finished(torch.randn(5, 1), torch.ones(5, 1), None, task)
    assert quality(case)["r2"] is None


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
