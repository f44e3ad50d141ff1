"""Sixteen settings of kd on MNIST's size, two single-thread processes on each side."""

from __future__ import annotations

from functools import cache, partial

import pytest
from pairs import Pairs, measured, started
from rows import Row, facts
from workload import KD_GRID, Workload

PAIRS = 5
PROCESSES = 2
STEPS = {"ours": 100, "naive": 10}


@cache
def grid() -> Pairs:
    """Each process has half of the settings; a side takes as long as its slower one."""
    work = partial(
        Workload,
        teacher="mlp_512_256",
        student="mlp_256_128",
        methods=KD_GRID,
        images="mnist",
        threads=1,
        train_items=60_000,
    )
    works = [
        work(side="ours"),
        work(side="ours", precision="bfloat16"),
        work(side="naive"),
    ]
    with started(works, PROCESSES) as (single, half, naive):
        visits = {
            "float32": lambda: single.visit(steps=STEPS["ours"]),
            "bfloat16": lambda: half.visit(steps=STEPS["ours"]),
            "naive": lambda: naive.visit(steps=STEPS["naive"]),
        }
        return measured(visits, PAIRS)


@pytest.mark.parametrize(
    ("precision", "bar", "aim"), [("float32", 5, 8), ("bfloat16", 10, 16)]
)
def test_grid_of_mlps(reached, benchmark, precision, bar, aim):
    pairs = benchmark.pedantic(grid, rounds=1)
    row = Row(
        name=f"MNIST MLP grid of 16, {PROCESSES} processes, {precision}",
        bar=bar,
        aim=aim,
        unit="ms/step",
        **facts(pairs, precision, scale=1e3),
    )
    reached(row)
