"""Synthetic records: a factory that needs neither torch nor training."""

from __future__ import annotations

from string import ascii_lowercase
from typing import Any

import pytest

from kdbench.records import Headline, Recipe, Record, Run, SpeedRecord
from kdbench.report.sections import Section, sections
from kdbench.store import Results

MACHINE = {"cpu": "Xeon", "device": "cpu", "threads": 2, "torch": "2.13.0"}
PLUGIN = {"distribution": "kdbench", "version": "0.1.0"}


class Factory:
    """Builds records of a teacher "big" and students "small" on "digits"."""

    recipe = Recipe(epochs=4, milestones=(2,))

    def run(self, label: str, seed: int = 0, **changes: Any) -> Run:
        strategy = label.partition("[")[0]
        values: dict[str, Any] = {
            "dataset": "digits",
            "pair": "big-small",
            "teachers": ("big",),
            "students": ("small",),
            "strategy": strategy,
            "label": label,
            "params": {},
            "seed": seed,
            "recipe": self.recipe,
            "teacher_runs": (),
            "code": {"strategy": "c0de" * 3, "dataset digits": "da7a" * 3},
        }
        return Run(**(values | changes))

    def record(
        self,
        label: str,
        seed: int = 0,
        top1: float | None = None,
        *,
        run: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Record:
        described = self.run(label, seed, **(run or {}))
        values: dict[str, Any] = {
            "id": described.id,
            "run": described,
            "status": "finished" if top1 is not None else "failed",
            "reason": None if top1 is not None else "loss is not finite",
            "family": "logits",
            "plugin": PLUGIN,
            "environment": MACHINE,
            "finished_at": "2026-01-01T00:00:00+00:00",
            "measures": {} if top1 is None else {"top1": top1},
            "test_items": 10_000,
        }
        return Record(**(values | changes))

    def teacher(self, top1: float = 90.0, **changes: Any) -> Record:
        run = {"students": ("big",), "teachers": (), "pair": "big"}
        sizes = {"parameters": 4000.0, "macs": 80_000.0, "size_bytes": 16_000.0}
        measures = {"top1": top1, **sizes}
        return self.record("teacher", 0, top1, run=run, measures=measures, **changes)

    def strategy(self, label: str, values: list[float | None], **changes: Any):
        """One record per seed, all taught by the standard teacher; None is failed."""
        run = {"teacher_runs": (self.teacher().id,)}
        return [
            self.record(label, seed, top1, run=run, **changes)
            for seed, top1 in enumerate(values)
        ]

    def speed(self, model: str, latency: float, **environment: Any) -> SpeedRecord:
        measures = {"latency_ms": latency, "throughput": 1000 / latency}
        return SpeedRecord(
            model=model,
            dataset="digits",
            measures=measures,
            environment=MACHINE | environment,
            finished_at="2026-01-01T00:00:00+00:00",
        )

    def results(self, *records: Record, **changes: Any) -> Results:
        values: dict[str, Any] = {"speed": [], "damaged": [], "superseded": 0}
        return Results(records=list(records), **(values | changes))

    def standard(self, **changes: Any) -> Results:
        """Teacher 90, scratch 80/81/82, kd 83/83/85, better 84/85/86, by hand."""
        return self.results(
            self.teacher(),
            *self.strategy("scratch", [80.0, 81.0, 82.0]),
            *self.strategy("kd", [83.0, 83.0, 85.0]),
            *self.strategy("better", [84.0, 85.5, 86.0]),
            **changes,
        )

    def students(
        self,
        pair: str,
        values: dict[str, Any],
        headline: Headline | None = None,
        **run: Any,
    ) -> list[Record]:
        """Those of one pair: label -> its values by seed, or seed -> value."""
        taught = {"teacher_runs": (self.teacher().id,), "pair": pair, **run}
        changes: dict[str, Any] = {"headline": headline} if headline else {}
        found = []
        for label, own in values.items():
            for seed, value in own.items() if isinstance(own, dict) else enumerate(own):
                if headline and value is not None:
                    changes["measures"] = {headline.name: value}
                found.append(self.record(label, seed, value, run=taught, **changes))
        return found

    def grid(self, *settings: dict[str, Any]) -> list[Section]:
        """The settings of pairs "a", "b", ..., all with the standard teacher."""
        students = [
            record
            for pair, values in zip(ascii_lowercase, settings, strict=False)
            for record in self.students(pair, values)
        ]
        return sections(self.results(self.teacher(), *students))


@pytest.fixture(scope="session")
def make() -> Factory:
    return Factory()
