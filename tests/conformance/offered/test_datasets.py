"""Checks of datasets: each names its mistake, and passes what is right."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest
import torch

from kdbench.api import Split, UserError
from kdbench.conformance.beside import toy
from kdbench.tasks import Head, Task

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings, said, subject

MUSEUM = Path(__file__).parents[2] / "museum"


def changed(dataset, change):
    """The dataset with other data."""
    return dataclasses.replace(
        dataset, load=lambda *_: change(dataset.load(None, False))
    )


def test_data_that_are_not_at_hand_are_no_failure(monkeypatch):
    def load(data_dir, download):
        raise UserError(f"nothing in {data_dir}: get it with --download")

    dataset = dataclasses.replace(toy("toy-vectors"), embedded=False, load=load)
    monkeypatch.setenv("KDBENCH_DATA", os.fspath(MUSEUM))
    found = findings(subject("dataset", dataset))
    assert found.pop("described").status == "passed"
    assert {one.status for one in found.values()} == {"does not apply"}
    assert found["loads"].said == f"nothing in {MUSEUM}: get it with --download"
    embedded = dataclasses.replace(dataset, embedded=True)
    assert failed(findings(subject("dataset", embedded))) == {"loads"}


def test_what_does_not_load_is_named_once():
    def load(data_dir, download):
        raise KeyError("no such part")

    dataset = dataclasses.replace(toy("toy-vectors"), load=load)
    found = findings(subject("dataset", dataset))
    assert failed(found) == {"loads"}
    assert "KeyError: 'no such part'" in found["loads"].said


def test_a_load_that_gives_something_else_is_told():
    dataset = dataclasses.replace(toy("toy-vectors"), load=lambda *_: ([], []))
    assert "tuple, and not Data" in said(subject("dataset", dataset), "loads")


def test_bytes_normalised_on_the_scale_of_one_are_told():
    def shrunk(data):
        return dataclasses.replace(data, mean=(0.5,), std=(0.2,))

    dataset = changed(toy("toy-images"), shrunk)
    assert "mean (0.5) and std (0.2); those of" in said(
        subject("dataset", dataset), "normalised"
    )


@pytest.mark.parametrize(("shared", "status"), [(1, "passed"), (2, "failed")])
def test_a_hundredth_of_the_test_items_may_be_known(shared, status):
    def mixed(data):
        inputs = data.test.inputs.clone()
        inputs[:shared] = data.train.inputs[-shared:]
        split = Split(inputs=inputs, targets=data.test.targets)
        return dataclasses.replace(data, test=split)

    dataset = changed(toy("toy-vectors"), mixed)
    found = said(subject("dataset", dataset), "no-leakage", status)
    if shared == 2:
        assert "2 of 128 test items (1.6%)" in found
        assert "rows 0, 1" in found


def test_the_head_that_lacks_a_class_is_told():
    which = Head(name="which", task=Task(outputs=3))
    size = Head(name="size", task=Task(kind="regression", outputs=1))

    def load(data_dir, download):
        data = toy("toy-vectors").load(None, False)
        split = {
            part: Split(
                inputs=inputs.inputs,
                targets=torch.stack([inputs.targets % n, inputs.targets], 1).float(),
            )
            for part, inputs, n in (("train", data.train, 3), ("test", data.test, 2))
        }
        return dataclasses.replace(data, **split)

    task = Task.several(which, size)
    dataset = dataclasses.replace(toy("toy-vectors"), task=task, load=load)
    words = said(subject("dataset", dataset), "every-class")
    assert words == "test (head which) has no item of 1 of 3 classes: 2"


def test_a_dataset_that_no_model_can_be_trained_on_is_told():
    def short(data):
        return dataclasses.replace(data, mean=(0.0, 0.0), std=(1.0, 1.0))

    found = findings(subject("dataset", changed(toy("toy-vectors"), short)))
    assert failed(found) == {"normalised", "trains"}
    assert found["normalised"].said == "2 means for 12 channels"
    assert "must match the size" in found["trains"].said


def test_a_dataset_without_a_source_is_told():
    dataset = dataclasses.replace(toy("toy-vectors"), source=" ")
    assert said(subject("dataset", dataset), "described") == "its source is ' '"
