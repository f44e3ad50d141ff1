"""Tables: their sizes, their splits, and what is refused in them."""

from __future__ import annotations

import dataclasses

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes

from kdbench.api import Data, Split, UserError
from kdbench.data.checks import loaded
from kdbench.data.digits import DIGITS, DIGITS_AND_INK
from kdbench.data.tabular import TABULAR
from kdbench.tasks import Task

BY_NAME = {dataset.name: dataset for dataset in TABULAR}


@pytest.mark.parametrize(
    ("name", "train", "test", "columns"),
    [
        ("diabetes", 331, 111, 10),
        ("breast_cancer_10", 426, 143, 10),
        ("noise", 800, 200, 10),
    ],
)
def test_embedded_tables(name, train, test, columns):
    data = loaded(BY_NAME[name], None, False)
    assert data.train.inputs.shape == (train, columns)
    assert data.test.inputs.shape == (test, columns)
    normalised = (data.train.inputs - torch.tensor(data.mean)) / torch.tensor(data.std)
    assert normalised.mean(0).abs().max() < 1e-4
    assert (normalised.std(0, correction=0) - 1).abs().max() < 1e-4


def test_diabetes_is_the_published_one():
    data = loaded(BY_NAME["diabetes"], None, False)
    everything = torch.cat([data.train.targets, data.test.targets]).flatten()
    assert sorted(everything.tolist()) == sorted(load_diabetes().target.tolist())
    assert everything.double().mean().item() == pytest.approx(152.1335, abs=1e-3)


def test_noise_has_nothing_to_learn():
    data = loaded(BY_NAME["noise"], None, False)
    both = torch.cat([data.train.inputs, data.train.targets], 1)
    assert torch.corrcoef(both.T)[-1, :-1].abs().max() < 0.15


def test_california_is_read_from_scikit_learns_cache(tmp_path):
    rows = np.random.default_rng(0).uniform(1, 9, (50, 9))
    joblib.dump(rows, tmp_path / "cal_housing_py3.pkz")
    data = loaded(BY_NAME["california_housing"], tmp_path, False)
    assert data.train.inputs.shape == (40, 8)
    assert data.test.targets.shape == (10, 1)


@pytest.mark.parametrize("folder", [None, "empty"])
def test_california_says_what_is_missing(tmp_path, folder):
    where = tmp_path if folder else None
    with pytest.raises(UserError, match=r"(?s)california_housing.*--d"):
        loaded(BY_NAME["california_housing"], where, False)


def test_ink_is_the_mean_pixel():
    data = loaded(DIGITS_AND_INK, None, False)
    plain = loaded(DIGITS, None, False)
    assert torch.equal(data.test.targets[:, 0].long(), plain.test.targets)
    by_hand = data.test.inputs[3].sum().item() / 64 / 15  # in 16 grey levels
    assert data.test.targets[3, 1].item() == pytest.approx(by_hand)


def number(targets, **changes):
    """A dataset of one number with these training targets."""
    split = Split(inputs=torch.zeros(4, 2), targets=targets)
    test = Split(inputs=torch.zeros(1, 2), targets=torch.zeros(1, 1))
    data = Data(train=split, test=test, mean=(0.0,), std=(1.0,))
    known = {"task": Task(kind="regression", outputs=1), "input_shape": (2,)}
    return dataclasses.replace(DIGITS, load=lambda *_: data, **{**known, **changes})


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.tensor([[1.0], [2.0], [float("nan")], [3.0]]), "row 2 is NaN"),
        (torch.zeros(4), r"float32 \(4, 1\), not torch.float32 \(4,\)"),
        (torch.zeros(4, 1, dtype=torch.int64), "not torch.int64"),
        (torch.zeros(4, 2), r"\(4, 2\)"),
    ],
)
def test_targets_that_are_refused(targets, says):
    with pytest.raises(UserError, match=says):
        loaded(number(targets), None, False)


def test_tokens_are_checked():
    def words(top):
        split = Split(inputs=torch.tensor([[1, top]]), targets=torch.tensor([0]))
        data = Data(train=split, test=split)
        return dataclasses.replace(
            DIGITS, load=lambda *_: data, input_shape=(2,), vocabulary=5
        )

    assert loaded(words(4), None, False).mean == ()
    with pytest.raises(UserError, match=r"tokens from 1 to 5 are not in 0\.\.4"):
        loaded(words(5), None, False)
