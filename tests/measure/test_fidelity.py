"""Fidelity against torchmetrics, scikit-learn and other forms of the same number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from kdbench.engine.feed import Feed
from kdbench.finishing import seen
from kdbench.measure.fidelity import kl, linear_cka
from kdbench.records import Recipe
from kdbench.vision import torchvision


def test_agreement_equals_scikit_learn(case, measured):
    found = measured(case).numbers
    said, teacher = case.logits.argmax(1), case.teacher_logits.argmax(1)
    wrong = teacher != case.targets
    every = accuracy_score(teacher, said)
    those = accuracy_score(teacher[wrong], said[wrong])
    assert found["agreement"] == pytest.approx(100 * every, abs=1e-12)
    assert found["agreement_wrong"] == pytest.approx(100 * those, abs=1e-12)
    assert every != those


def test_kl_equals_torchmetrics(case, measured):
    torchvision("transforms")  # torchmetrics imports it
    from torchmetrics.functional.regression import kl_divergence

    student, teacher = (
        logits.double().log_softmax(1) for logits in (case.logits, case.teacher_logits)
    )
    expected = kl_divergence(teacher, student, log_prob=True).item()
    assert measured(case).numbers["teacher_kl"] == pytest.approx(expected, rel=1e-9)
    assert kl(case.teacher_logits, case.logits) != pytest.approx(expected, rel=0.01)


def test_the_teacher_itself_is_0_away(case):
    assert kl(case.logits + 5, case.logits) == pytest.approx(0, abs=1e-12)


def test_a_class_that_the_teacher_rules_out_counts_nothing():
    teacher = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert kl(torch.zeros(1, 3), teacher) == pytest.approx(np.log(1.5))


def test_a_teacher_that_never_errs_leaves_nothing_to_agree_on(case, finished, measured):
    sure = torch.eye(7)[case.targets]
    found = measured(finished(case.logits, case.targets, teacher_logits=sure)).numbers
    assert found["agreement_wrong"] is None
    assert found["agreement"] == found["top1"]


def test_without_a_teacher_nothing_is_compared(case, finished, measured):
    alone = finished(case.logits, case.targets, features=lambda: None)
    found = measured(alone, "cka").numbers
    assert found["cka"] is None
    assert not {n for n in found if n.startswith(("agreement", "teacher"))}


@pytest.mark.parametrize("who", ["probabilities", "teacher_probabilities"])
def test_kl_needs_probabilities_of_both(case, finished, measured, who):
    known = {"teacher_logits": case.teacher_logits, who: False}
    found = measured(finished(case.logits, case.targets, **known)).numbers
    assert found["teacher_kl"] is None
    assert found["agreement"] is not None


def hsic_form(x, y):
    """Kornblith et al. 2019, eq. 3 and 4 on Gram matrices, with the centring matrix."""
    items = len(x)
    centre = np.eye(items) - 1 / items
    k, m = (centre @ one @ one.T @ centre for one in (x, y))
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


@pytest.mark.parametrize("widths", [(7, 12), (7, 90), (90, 7), (80, 90)])
def test_cka_equals_its_gram_matrix_form(widths):
    generator = torch.Generator().manual_seed(0)
    x, other = (3 + torch.randn(40, width, generator=generator) for width in widths)
    y = other + x.mean(1, keepdim=True)
    expected = hsic_form(x.double().numpy(), y.double().numpy())
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)
    assert 0.01 < expected < 0.99


def test_cka_needs_no_matrix_of_all_features():
    """One of 300,000 x 300,000 numbers would take 720 GB."""
    x, y = torch.randn(2, 9, 300_000, generator=torch.Generator().manual_seed(0))
    expected = hsic_form(x.double().numpy(), y.double().numpy())
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_cka_sees_neither_rotation_nor_scale_nor_shift():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    assert linear_cka(x, 1e4 * x @ turn + 7) == pytest.approx(1, rel=1e-5)
    assert linear_cka(x, x * torch.tensor([9, 1, 1, 1, 1, 1])) < 0.9


def test_what_has_no_classifier_has_no_features(host):
    dataset = host.dataset("digits")
    feed = Feed(
        dataset.load(None, False), dataset.task, Recipe(), 0, torch.device("cpu")
    )
    network = host.model("mlp_bn_8_8")
    taught = dataset.build(network).eval()
    for spec, width in ((network, 8), (replace(network, classifier=""), None)):
        found = seen(spec, taught, dataset, feed, (network, taught), None).features()
        if width is None:
            assert found is None
        else:
            assert [tuple(one.shape) for one in found] == [(450, width)] * 2


def test_cka_of_a_run_is_that_of_its_features(run_digits, tmp_path):
    _, records = run_digits(
        tmp_path,
        pairs=["digits-mlp"],
        strategies=["scratch"],
        epochs=1,
        measures=["cka"],
    )
    taught = records["digits-mlp/scratch/0"].measures["cka"]
    assert 0 < taught < 1
    [teacher] = [r for r in records.values() if r.run.is_teacher]
    assert teacher.measures["cka"] is None
