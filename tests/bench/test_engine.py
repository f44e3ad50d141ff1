"""What the engine itself takes: beside the training's own work, and for checkpoints."""

from __future__ import annotations

from ours import PARTS, SHARES
from pairs import measured, started
from rows import Row, rest
from workload import KD_GRID, Workload

BUDGET_S = 60.0
"""The engine's own: how often a run writes checkpoints unless it is told otherwise."""
SHORT_S = 4.0


def test_engine_overhead(reached, benchmark):
    """Wall time that is neither data, teacher, student, loss, backward nor update."""
    work = Workload(
        side="ours", teacher="resnet56", student="resnet20", methods=KD_GRID[:8]
    )
    with started([work]) as [side]:
        sides = {"ours": lambda: side.visit(steps=6)}
        pairs = benchmark.pedantic(measured, args=(sides, 5), rounds=1)

    def overhead(pair):
        known = sum(pair["ours"][part] for part in (*PARTS, *SHARES))
        return 1 - known / pair["ours"]["total"]

    row = Row(
        name="engine overhead, resnet20, batch 64",
        value=pairs.median(overhead),
        bar=0.05,
        aim=0.02,
        kind="share",
        better="lower",
        **rest(pairs),
    )
    reached(row)


def test_checkpoint_overhead(reached, benchmark, tmp_path):
    """Sixteen resnet8x4, written to disk: the share of the time between two writes."""
    work = Workload(
        side="ours", teacher="resnet20", student="resnet8x4", methods=KD_GRID
    )
    with started([work]) as [side]:
        side.visit(steps=1)
        spent = benchmark.pedantic(
            side.visit,
            args=("visit_with_checkpoints",),
            kwargs={"steps": 8, "folder": str(tmp_path), "every_s": SHORT_S},
            rounds=1,
        )
    row = Row(
        name=f"checkpoints of 16 resnet8x4 every {BUDGET_S:.0f} s",
        value=spent["one"] / BUDGET_S,
        bar=0.02,
        kind="share",
        better="lower",
        ours=spent["one"],
        unit="s",
    )
    measured_share = spent["saving"] / spent["total"]
    print(
        f"\nwith one every {SHORT_S:.0f} s: {spent['times']:.0f} of "
        f"{spent['megabytes']:.0f} MB took {100 * measured_share:.1f}% of a run of "
        f"{spent['total']:.0f} s"
    )
    reached(row, short_budget_s=SHORT_S, short_budget_share=measured_share, **spent)
