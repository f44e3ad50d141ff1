"""Quality measures against scikit-learn and hand counts."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from kdbench.api import Finished, Measure, Task
from kdbench.measure import measure_all
from kdbench.measure.quality import agreement, bitmask, correct, top1


def finished(logits, targets, teacher=None):
    return Finished(
        model=torch.nn.Identity(),
        task=Task(outputs=logits.shape[1]),
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


def test_top1_equals_scikit_learn(case):
    expected = 100 * accuracy_score(case.targets, case.logits.argmax(1))
    assert top1(case) == pytest.approx(expected, abs=1e-12)


def test_agreement_is_accuracy_against_the_teacher(case):
    teacher = case.teacher_logits.argmax(1)
    expected = 100 * accuracy_score(teacher, case.logits.argmax(1))
    assert agreement(case) == pytest.approx(expected, abs=1e-12)
    assert agreement(finished(case.logits, case.targets)) is None


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
    values, problems = measure_all(measures, "run", case)
    nulls = dict.fromkeys("abcf")
    assert values == {**nulls, "d": 1.0, "d_q1": 2.5}
    assert problems[0] == "measure a: ZeroDivisionError: no"
    assert problems[1].startswith("measure f: TypeError")
