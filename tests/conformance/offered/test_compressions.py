"""Checks of compressions: each names its mistake, and passes what is right."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from kdbench.api import Compression, UserError

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings, said, subject


def halved(base, **changes):
    """Every weight halved: smaller numbers, no smaller file."""

    def from_student(student, shape, outputs):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter /= 2
        return student

    known = {"name": f"{base.name}/halved", "from_teacher": from_student}
    return dataclasses.replace(base, **{**known, **changes})


def compression(**changes):
    known = {"name": "halved", "summary": "half of every weight", "model": halved}
    return Compression(**{**known, **changes})


def breaking(base):
    def from_student(student, shape, outputs):
        raise RuntimeError("cannot be halved")

    return halved(base, from_teacher=from_student)


def refusing(base):
    raise UserError(f"{base.name} is too small")


def changing(base):
    object.__setattr__(base, "summary", "halved")
    return halved(base)


@pytest.mark.parametrize(
    ("model", "wrong", "says"),
    [
        (halved, set(), ""),
        (breaking, {"compresses"}, "cannot be halved"),
        (refusing, {"compresses"}, "convnet_14 is too small; mlp_32 is too small"),
        (lambda base: None, {"compresses"}, "gave None, and not a Model"),
        (partial(halved, from_teacher=None), {"compresses"}, "no from_teacher"),
        (changing, {"own-model"}, "changes summary"),
    ],
)
def test_compressions(model, wrong, says):
    found = findings(subject("compression", compression(model=model)))
    assert failed(found) == wrong
    assert all(says in found[check].said for check in wrong)


def test_a_compression_that_renames_nothing_is_told():
    def nameless(base):
        return halved(base, name=base.name)

    thing = compression(model=nameless)
    assert "is called so, too" in said(subject("compression", thing), "own-model")


def test_a_compression_without_its_package_is_not_tried():
    thing = compression(missing=lambda: "install torchao")
    asked = subject("compression", thing)
    assert said(asked, "compresses", "does not apply") == "install torchao"
