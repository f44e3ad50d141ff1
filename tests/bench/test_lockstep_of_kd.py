"""Sixteen settings of kd in lockstep, and how well their steps use the machine."""

from __future__ import annotations

from functools import cache, partial

import pytest
from pairs import Pairs, measured, started
from rows import Row, facts, rest
from workload import KD_GRID, Workload

PAIRS = 3
PAIR = "resnet32x4->resnet8x4"
STEPS = {"ours": 2, "naive": 1}


@cache
def grid() -> Pairs:
    """Both precisions, the naive loops, and the machine's peaks, in one run."""
    teacher, student = PAIR.split("->")
    work = partial(Workload, teacher=teacher, student=student, methods=KD_GRID)
    works = [
        work(side="ours"),
        work(side="ours", precision="bfloat16"),
        work(side="naive"),
    ]
    with started(works) as (single, half, naive):
        visits = {
            "float32": lambda: single.visit("visit_with_peak", steps=STEPS["ours"]),
            "bfloat16": lambda: half.visit("visit_with_peak", steps=STEPS["ours"]),
            "naive": lambda: naive.visit(steps=STEPS["naive"]),
        }
        return measured(visits, PAIRS)


@pytest.mark.parametrize(
    ("precision", "bar", "aim"), [("float32", 3.0, 3.5), ("bfloat16", 5.0, 6.5)]
)
def test_sixteen_of_kd(reached, benchmark, precision, bar, aim):
    pairs = benchmark.pedantic(grid, rounds=1)
    row = Row(
        name=f"lockstep of 16 kd, {PAIR}, {precision}",
        bar=bar,
        aim=aim,
        unit="s/step",
        **facts(pairs, precision),
    )
    reached(row)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_share_of_the_convolution_peak(reached, benchmark, precision):
    pairs = benchmark.pedantic(grid, rounds=1)

    def share(pair):
        return pair[precision]["student_flops"] / pair[precision]["peak_flops"]

    def rate(side):
        return pairs.median(lambda pair: pair[precision][f"{side}_flops"]) / 1e9

    row = Row(
        name=f"share of the conv peak, resnet8x4 steps, {precision}",
        value=pairs.median(share),
        bar=0.60,
        aim=0.75,
        kind="share",
        ours=rate("student"),
        naive=rate("peak"),
        unit="GFLOP/s",
        **rest(pairs),
    )
    reached(row)
