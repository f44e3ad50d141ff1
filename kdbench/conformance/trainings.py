"""Toy trainings of one strategy, by the engine itself, each done once and kept.

What checks need besides: the batches that the strategy was shown, and what it did with
them (`watched`).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kdbench.api import Strategy
from kdbench.atomic import write_whole
from kdbench.config import Suite
from kdbench.conformance.checks import DoesNotApply
from kdbench.conformance.toys import HOMES, ITEMS, TWO_CLASSES, Toy
from kdbench.conformance.watched import Watch, WatchingWork, passed_over
from kdbench.engine import Stopped
from kdbench.execute import make_jobs, usable
from kdbench.perform import perform
from kdbench.plan import Plan, make_plan
from kdbench.plugins import Host, Offer
from kdbench.recording import weights_path
from kdbench.records import Record
from kdbench.store import load

RECIPE: Mapping[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.05,
    "schedule": "constant",
}
"""Of every toy training, unless a check asks for another."""


@dataclass(frozen=True)
class Trial:
    """What a toy training left: the record, and its student's weights."""

    record: Record

    @property
    def failed(self) -> str | None:
        """Why the run failed, or None."""
        return self.record.reason if self.record.status == "failed" else None

    @property
    def bits(self) -> dict[str, object]:
        """Everything of it that must not depend on when and beside whom it ran."""
        record = self.record
        speeds = ("latency", "throughput")
        return {
            "status": record.status,
            "reason": record.reason,
            "curves": record.curves,
            "weights": record.weights_sha256,
            "measures": {
                k: v for k, v in record.measures.items() if not k.startswith(speeds)
            },
        }


@dataclass
class Subject:
    """A strategy on trial: where it is at home, and its trainings.

    Its home is the first of `toys`, and then of `further()`, that it supports.
    """

    host: Host
    name: str
    toys: Sequence[Toy] = HOMES
    further: Callable[[], Sequence[Toy]] = tuple
    _kept: dict[object, Any] = field(default_factory=dict)

    @property
    def offer(self) -> Offer:
        return self.host.get("strategies", self.name)

    @property
    def kind(self) -> type[Strategy]:
        kind: type[Strategy] = self.offer.thing
        return kind

    @property
    def strategy(self) -> Strategy:
        """As the trainings have it: short phases, otherwise its defaults."""
        return self.kind.configured(self._short)

    @property
    def _short(self) -> dict[str, Any]:
        """Warm-ups and phases are to last an epoch."""
        return {
            name: type(default)(1)
            for name, default in self.kind.parameters().items()
            if name.endswith(("_epochs", "_epoch"))
            and isinstance(default, int | float)
            and default > 1
        }

    def text(self, **values: Any) -> str:
        """How a suite writes it, with these hyper-parameters."""
        given = {**self._short, **values}
        inside = ",".join(f"{key}={value}" for key, value in given.items())
        return f"{self.name}[{inside}]" if inside else self.name

    @property
    def home(self) -> Toy:
        """Where it is trained; DoesNotApply, with the reasons, where there is none."""
        if "home" not in self._kept:
            reasons = {}
            for toy in self._tried():
                why = self.refusal(toy)
                if why is None:
                    self._kept["home"] = toy
                    break
                reasons[toy.pair] = why
            else:
                said = "; ".join(f"{pair}: {why}" for pair, why in reasons.items())
                raise DoesNotApply(f"it supports none of the toy pairs ({said})")
        found: Toy = self._kept["home"]
        return found

    def _tried(self) -> Iterator[Toy]:
        yield from self.toys
        yield from self.further()  # made only where it supports none of the others

    @property
    def loops(self) -> bool:
        """Whether it drives its own loop, and so shows the engine no loss."""
        return self.kind.drives_itself()

    def refusal(self, toy: Toy) -> str | None:
        """Why it cannot run there, in its own words or the plan's; None if it can."""
        plan = self.plan(toy)
        mine = [why for run, why in plan.skipped if run.strategy == self.name]
        return mine[0] if mine else None

    def plan(
        self,
        toy: Toy,
        company: Sequence[str] = (),
        folder: Path | None = None,
        last: bool = False,
        **recipe: Any,
    ) -> Plan:
        """The plan of a suite of this strategy and its company on this toy."""
        suite = Suite(
            name="toys",
            datasets=(toy.dataset,),
            pairs=(toy.pair,),
            strategies=(*company, self.text()) if last else (self.text(), *company),
            seeds=1,
            recipe={**RECIPE, **recipe},
        )
        finished = {}
        if folder is not None:
            finished = usable(folder, load([folder]).records, self.host)
        return make_plan(suite, self.host, finished)

    def train(
        self,
        toy: Toy | None = None,
        *,
        company: Sequence[str] = (),
        last: bool = False,
        again: int = 0,
        stops: Sequence[int] = (),
        **recipe: Any,
    ) -> Trial:
        """A toy training; the same one is done once, `again` counts repetitions.

        `company` are other strategies trained beside it, as a suite writes them: after
        it, or before it where it is `last`. At each of `stops`, counted in questions
        whether to stop, training is stopped, and goes on from its checkpoint.
        """
        toy = toy or self.home
        given = (tuple(company), last, again, tuple(stops))
        key = (toy, given, *sorted(recipe.items()))
        if key not in self._kept:
            self._kept[key] = self._trained(toy, company, stops, None, recipe, last)
        trial: Trial = self._kept[key]
        return trial

    def watched(self, toy: Toy | None = None, **recipe: Any) -> Watch:
        """A toy training in which every step is looked at.

        Raises DoesNotApply where the strategy supports no toy. A training that fails is
        in the watch's `failure`.
        """
        toy = toy or self.home
        key = ("watched", toy, *sorted(recipe.items()))
        if key not in self._kept:
            watch = Watch()
            watch.trial = self._trained(toy, (), (), watch, recipe)
            self._kept[key] = watch
        found: Watch = self._kept[key]
        return found

    def two_classes(self) -> Toy:
        """Its home with two classes instead of four."""
        home = self.home
        return Toy(TWO_CLASSES.get(home.dataset, home.dataset), home.pair)

    @passed_over()  # by looks at what lives, too
    def _trained(
        self,
        toy: Toy,
        company: Sequence[str],
        stops: Sequence[int],
        watch: Watch | None,
        recipe: Mapping[str, Any],
        last: bool = False,
    ) -> Trial:
        folder = Path(tempfile.mkdtemp(dir=_workplace()))
        threads = torch.get_num_threads()
        try:
            self._teach(toy, folder, recipe)
            plan = self.plan(toy, company, folder, last, **recipe)
            jobs = make_jobs(
                plan, self.host, {toy.dataset: ITEMS}, folder, None, "cpu", 60.0, 1
            )
            for job in jobs:
                mine = any(run.strategy == self.name for run in job.group.runs)
                if watch is not None and mine:
                    WatchingWork(job, self.host, watch, self.name).perform()
                else:
                    left = list(stops) if mine else []
                    while not _performed(job, self.host, left):
                        pass
            own = self.strategy.values()
            [record] = [
                record
                for record in load([folder]).records
                if record.run.strategy == self.name and record.run.params == own
            ]
            return Trial(record)
        finally:
            torch.set_num_threads(threads)
            shutil.rmtree(folder, ignore_errors=True)

    def _teach(self, toy: Toy, folder: Path, recipe: Mapping[str, Any]) -> None:
        """Put the teachers into the folder, trained now or earlier in this process."""
        plan = self.plan(toy, **recipe)
        jobs = make_jobs(
            plan, self.host, {toy.dataset: ITEMS}, folder, None, "cpu", 60.0, 1
        )
        for job in jobs:
            if job.group.teachers or not job.group.runs[0].is_teacher:
                continue
            ids = [run.id for run in job.group.runs]
            places = [Path(f"{i}.json") for i in ids]
            places += [weights_path(Path(), i) for i in ids]
            known = [_teachers().get(place) for place in places]
            if all(known):
                for place, data in zip(places, known, strict=True):
                    write_whole(folder / place, data or b"")
                continue
            perform(job, self.host, lambda _: None, lambda: False)
            for place in places:
                if (folder / place).is_file():
                    _teachers()[place] = (folder / place).read_bytes()


def subject_of(
    host: Host,
    name: str,
    toys: Sequence[Toy] = HOMES,
    further: Callable[[], Sequence[Toy]] = tuple,
) -> Subject:
    """The strategy of this name on trial. Raises UserError for an unknown one."""
    host.strategy(name)
    return Subject(host, name, toys, further)


def _performed(job: Any, host: Host, stops: list[int]) -> bool:
    """Perform a job up to the first of `stops`, taken off; whether it ended."""
    asked = 0
    at = stops.pop(0) if stops else None

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return at is not None and asked > at

    try:
        perform(job, host, lambda _: None, stop)
    except Stopped:
        return False
    return True


@cache
def _workplace() -> Path:
    """A folder that goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="kdbench-check-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _teachers() -> dict[Path, bytes]:
    """Files of teachers that this process has trained, by their place in a folder."""
    return {}
