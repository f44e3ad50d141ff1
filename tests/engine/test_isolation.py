"""The engine's first promise: a run's bits are a function of its description alone."""

from __future__ import annotations

import pytest
import torch

from kdbench.plugins import Host

STRATEGIES = [
    "label_smoothing",
    "logit_mse",
    "dkd",
    "dist",
    "logit_standardization",
    "fitnet",
    "at",
    "sp",
    "rkd",
    "pkt",
    "hard_pseudo_label",
    "confident_pseudo_label",
    "dml",
    "ensemble_kd",
    "split_transfer",
]


def test_the_list_above_is_the_suite(whole):
    assert {r.run.strategy for r in whole.values()} == {
        *STRATEGIES,
        "teacher",
        "scratch",
        "kd",
    }


@pytest.mark.parametrize(
    "strategy",
    [
        "fitnet",
        pytest.param("rkd", marks=pytest.mark.slow),
        "dml",
        pytest.param("ensemble_kd", marks=pytest.mark.slow),
        pytest.param("split_transfer", marks=pytest.mark.slow),
    ],
)
def test_alone_equals_in_company(whole, run_digits, helpers, tmp_path, strategy):
    """Also of scratch and kd, which come along with everyone. One of each kind here;
    tests/test_every_strategy.py has all of them in other company."""
    failed, alone = run_digits(tmp_path, strategies=[strategy])
    assert failed == 0
    assert {r.run.strategy for r in alone.values()} >= {strategy, "scratch", "kd"}
    for cell, record in alone.items():
        assert helpers["bits"](record) == helpers["bits"](whole[cell])


def test_order_of_the_company_does_not_matter(whole, run_digits, helpers, tmp_path):
    names = ["sp", "dml", "kd", "fitnet", "scratch"]
    _, records = run_digits(tmp_path, strategies=names)
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](whole[cell])


@pytest.mark.slow
def test_global_randomness_before_does_not_matter(whole, run_digits, helpers, tmp_path):
    torch.manual_seed(12345)
    torch.rand(7)
    _, records = run_digits(tmp_path, strategies=["fitnet"], pairs=["digits-conv"])
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](whole[cell])


def test_every_strategy_starts_from_the_same_student(whole):
    """Two epochs in, the strategies differ; the seeds' pairing is in the streams."""
    tops = {
        cell: record.weights_sha256
        for cell, record in whole.items()
        if cell.startswith("digits-conv") and record.status == "finished"
    }
    same = {"digits-conv/scratch/0", "digits-conv/hard_pseudo_label/0"}
    others = [v for k, v in tops.items() if k not in same]
    assert len(set(others)) == len(others)


DEEP = """
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import *

@dataclass(frozen=True, kw_only=True)
class Deep(Strategy):
    '''Taps a module inside a stage.'''
    name = "deep"
    taps = ("stage2.0", "stage1")
    def loss(self, batch):
        assert list(batch.teacher.features) == ["stage1", "stage2.0"]
        assert list(batch.student.features) == ["stage1", "stage2.0"]
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Deep]
"""


def test_nobody_sees_what_others_tap(whole, run_digits, helpers, tmp_path):
    """One that reads all stages must not find somebody else's module among them."""
    path = tmp_path / "deep.py"
    path.write_text(DEEP)
    failed, records = run_digits(
        tmp_path / "out",
        plugins=Host(files=[path]),
        strategies=["deep", "at", "sp", "kd+at", "deep+sp"],
        pairs=["digits-conv"],
    )
    assert failed == 0
    for strategy in ("at", "sp", "kd"):
        cell = f"digits-conv/{strategy}/0"
        assert helpers["bits"](records[cell]) == helpers["bits"](whole[cell])
