"""Checks of what is made of finished runs: measures and renderers."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from kdbench.api import Renderer
from kdbench.conformance.tried import ours

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings, said, subject


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unit": None}, "its unit is None"),
        ({"scope": "runs"}, "its scope is 'runs'"),
        ({"tasks": ("classify",)}, "its tasks are ('classify',); there are"),
        ({"tasks": "classification"}, "its tasks are 'classification'"),
        ({"tasks": ()}, "its tasks are ()"),
    ],
)
def test_a_measure_that_is_ill_described_is_told(changes, says):
    thing = dataclasses.replace(ours().get("measures", "ece").thing, **changes)
    assert says in said(subject("measure", thing), "described")


def test_a_measure_that_seeds_and_draws_nothing_is_told():
    def compute(finished):
        torch.manual_seed(0)
        return 1.0

    thing = dataclasses.replace(ours().get("measures", "top1").thing, compute=compute)
    found = findings(subject("measure", thing))
    assert failed(found) == {"own-randomness"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("inf"), "it is inf, which is not finite"),
        ("much", "it is 'much', a str"),
        ({"first": [1.0, "two"]}, "first is 'two', a str"),
        ({1: 2.0}, "it names a number 1"),
        (None, None),
        ({}, None),
        ({"first": [1.0, None]}, None),
    ],
)
def test_what_a_measure_may_come_to(value, says):
    measure = ours().get("measures", "top1").thing
    thing = dataclasses.replace(measure, compute=lambda finished: value)
    found = findings(subject("measure", thing))
    assert failed(found) == ({"computes"} if says else set())
    assert (says or "") in found["computes"].said


def in_place(results, folder):
    Path("count.txt").write_text("2")
    return [Path("count.txt")]


def promising(results, folder):
    return [folder / "count.txt"]


def wordless(results, folder):
    (folder / "count.txt").write_text("2")
    return []


@pytest.mark.parametrize(
    ("render", "says"),
    [
        (in_place, "it writes here/count.txt outside its folder"),
        (promising, "it returns count.txt, and there is no such file"),
        (wordless, "it returns no path; it wrote 1 files"),
    ],
)
def test_renderers(render, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    thing = Renderer(name="mine", summary="counts", render=render)
    assert said(subject("renderer", thing), "own-folder") == says
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path
