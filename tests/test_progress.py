"""The line that tells where a run is."""

from __future__ import annotations

import io

from rich.console import Console

from kdbench.config import Suite
from kdbench.execute import make_jobs
from kdbench.plan import make_plan
from kdbench.progress import Progress
from kdbench.records import TOP1, Recipe


def test_a_group_is_told_before_any_other_dataset_has_a_value(host, tmp_path):
    """Teachers that are taken from the cache tell nothing of theirs."""
    suite = Suite(
        name="two",
        datasets=("digits", "noise"),
        pairs=("digits-mlp",),
        strategies=("scratch", "kd"),
        seeds=1,
        recipe=Recipe(epochs=1),
    )
    plan = make_plan(suite, host, {})
    items = {"digits": 1347, "noise": 1347}
    jobs = make_jobs(plan, host, items, tmp_path, None, "cpu", 60.0)
    text = io.StringIO()
    students = [j for j in jobs if not j.group.runs[0].is_teacher]
    first, last = students[0].group.runs[0], students[-1].group.runs[0]
    assert first.dataset != last.dataset
    with Progress(Console(file=text, width=200), jobs) as progress:
        progress.see(("started", first))
        progress.see(("epoch", first, 1, TOP1, 87.5))
    assert f"epoch 1/1 ({first.label} 87.5)" in text.getvalue()
