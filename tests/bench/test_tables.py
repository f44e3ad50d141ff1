"""Whole tables: eleven strategies in lockstep against eleven textbook loops."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache, partial

import pytest
from pairs import Pairs, measured, started
from rows import Row, facts
from workload import TABLE, Workload

PAIRS = 3
NAMES = [name for name, _ in TABLE]


@dataclass(frozen=True)
class Pair:
    teacher: str
    student: str
    steps: tuple[int, int]
    """Of a visit: the naive side's of each method, and ours of the group."""

    def __str__(self) -> str:
        return f"{self.teacher}->{self.student}"


WIDE = Pair("resnet32x4", "resnet8x4", (1, 2))
THIN = Pair("resnet56", "resnet20", (2, 4))


@cache
def table_of(pair: Pair) -> Pairs:
    """Both precisions of ours and the naive loops, in one run."""
    work = partial(Workload, teacher=pair.teacher, student=pair.student)
    works = [
        work(side="ours"),
        work(side="ours", precision="bfloat16"),
        work(side="naive"),
    ]
    slow, fast = pair.steps
    with started(works) as (single, half, naive):
        visits = {
            "float32": lambda: single.visit(steps=fast),
            "bfloat16": lambda: half.visit(steps=fast),
            "naive": lambda: naive.visit(steps=slow),
        }
        return measured(visits, PAIRS)


def hold(reached, benchmark, pair, precision, bar, aim, without=()):
    pairs = benchmark.pedantic(table_of, args=(pair,), rounds=1)

    def of_those_left(spent):
        return spent["total"] - sum(spent[name] for name in without)

    def of_each(side):
        return {
            name: statistics.median(pair[side][name] for pair in pairs.kept)
            for name in NAMES
        }

    what = f"table of {len(NAMES) - len(without)}"
    what += "".join(f", without {name}" for name in without)
    row = Row(
        name=f"{what}, {pair}, {precision}",
        bar=bar,
        aim=aim,
        unit="s/step",
        **facts(pairs, precision, of_those_left),
    )
    by_method = {"ours": of_each(precision), "naive": of_each("naive")}
    reached(row, seconds_per_step=by_method)


@pytest.mark.parametrize(
    ("precision", "bar", "aim"), [("float32", 5.5, 8), ("bfloat16", 9, 14)]
)
def test_whole_table(reached, benchmark, precision, bar, aim):
    hold(reached, benchmark, WIDE, precision, bar, aim)


@pytest.mark.parametrize(
    ("precision", "bar", "aim"), [("float32", 3.0, 4), ("bfloat16", 5.0, 7)]
)
def test_table_without_nst(reached, benchmark, precision, bar, aim):
    hold(reached, benchmark, WIDE, precision, bar, aim, without=("nst",))


@pytest.mark.parametrize(
    ("precision", "bar", "aim"), [("float32", 3.5, 5), ("bfloat16", 5.0, 8)]
)
def test_table_of_thin_resnets(reached, benchmark, precision, bar, aim):
    hold(reached, benchmark, THIN, precision, bar, aim)
