"""What `kdbench run` shows while it runs: epochs, time left, accuracy so far.

A live display in a terminal; anywhere else plain lines: one when a group ends, and
between them no more than one every few seconds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdbench.job import Job
from kdbench.records import Headline, Record, Run

PLAIN_EVERY_S = 10.0
TELLING_SHARE = 0.03
"""Share of the work after which the time left can be told from the time gone."""


Cell = tuple[str, str, str]
"""Dataset, pair and label."""


def _cell(run: Run) -> Cell:
    return run.dataset, run.pair, run.label


def clock(seconds: float) -> str:
    """1:05 or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Follows the events of a run. Use as a context manager."""

    def __init__(self, console: Console, jobs: Sequence[Job]):
        self._console = console
        self._group = {run.id: job for job in jobs for run in job.group.runs}
        self._titles = {job.id: job.group.title for job in jobs}
        self._epochs = {
            job.id: job.group.runs[0].recipe.epochs for job in jobs if job.group.runs
        }
        self._early = {i: count for job in jobs for i, count in job.early.items()}
        self._total = sum(
            (run.recipe.epochs + job.early.get(run.id, 0)) * job.work
            for job in jobs
            for run in job.group.runs
        )
        self._at: dict[str, int] = {}
        self._running: dict[str, set[str]] = defaultdict(set)
        self._first: dict[str, int] = {}
        self._seen: dict[Cell, dict[int, float]] = defaultdict(dict)
        self._headlines: dict[str, Headline] = {}
        self._failed = 0
        self._started = monotonic()
        self._spoke = self._started
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._picture, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"note: {text}", highlight=False, markup=False)

    def see(self, event: tuple[Any, ...]) -> None:
        kind, *rest = event
        if kind == "started":
            self._running[self._group[rest[0].id].id].add(rest[0].id)
        elif kind == "epoch":
            self._epoch(*rest)
        elif kind == "record":
            self._record(rest[0])
        elif kind == "elsewhere":
            self._done_elsewhere(rest[0])
        elif kind == "note":
            self.note(rest[0])

    def _epoch(self, run: Run, epoch: int, headline: Headline, value: float) -> None:
        self._first.setdefault(run.id, epoch - 1)
        self._at[run.id] = epoch
        if not run.is_teacher and not math.isnan(value):
            self._seen[_cell(run)][run.seed] = value
        self._headlines[run.dataset] = headline
        group = self._group[run.id].id
        if not self._live and self._is_last(run, group, epoch):
            last = epoch == run.recipe.epochs
            if last or monotonic() - self._spoke >= PLAIN_EVERY_S:
                self._spoke = monotonic()
                line = self._line(group, epoch)
                self._console.print(line, highlight=False, markup=False)

    def _is_last(self, run: Run, group: str, epoch: int) -> bool:
        """Whether every running member of the group has ended this epoch."""
        members = self._running[group]
        return all(self._epoch_of(i) >= epoch for i in members | {run.id})

    def _epoch_of(self, run_id: str) -> int:
        """The last epoch that a run has ended; below 1 in phases before the first."""
        return self._at.get(run_id, -self._early.get(run_id, 0))

    def _record(self, record: Record) -> None:
        self._at[record.id] = record.run.recipe.epochs
        job = self._group.get(record.id)
        if job:
            self._running[job.id].discard(record.id)
        if record.status == "failed":
            self._failed += 1
            run = record.run
            self._console.print(
                f"failed: {run.label} on {run.dataset} {run.pair} seed {run.seed}: "
                f"{record.reason}",
                highlight=False,
                markup=False,
            )

    def _done_elsewhere(self, record: Record) -> None:
        """Another process trained it: done, and no measure of how fast this one is."""
        run = record.run
        self._first[run.id] = self._at[run.id] = run.recipe.epochs
        value = record.measures.get(record.headline.name)
        if record.status == "finished" and value is not None and not run.is_teacher:
            self._headlines[run.dataset] = record.headline
            self._seen[_cell(run)][run.seed] = value

    def _line(self, group: str, epoch: int) -> str:
        gone = clock(monotonic() - self._started)
        where = self._where(group, epoch)
        best = self._best_of(group)
        return f"{gone:>6}  {self._titles[group]}: {where}{best}{self._left()}"

    def _where(self, group: str, epoch: int) -> str:
        """Which epoch it is; those of earlier phases count down to the recipe's."""
        if epoch < 1:
            return f"earlier phases, {-epoch} epochs to the first"
        return f"epoch {epoch}/{self._epochs[group]}"

    def _best_of(self, group: str) -> str:
        """The group's headline values so far, best first."""
        found = []
        dataset = ""
        for run_id, job in self._group.items():
            run = next(r for r in job.group.runs if r.id == run_id)
            value = self._seen.get(_cell(run), {}).get(run.seed)
            if job.id == group and value is not None:
                dataset = run.dataset
                found.append((value, run.label))
        if not found:
            return ""
        return f" ({', '.join(self._ranked(dataset, found)[:3])})"

    def _ranked(self, dataset: str, found: list[tuple[float, str]]) -> list[str]:
        """Labels with their values, the best first."""
        headline = self._headlines[dataset]
        found = sorted(found, reverse=headline.better == "higher")
        digits = ".1f" if headline.unit == "%" else ".3g"
        return [f"{label} {value:{digits}}" for value, label in found]

    def _left(self) -> str:
        resumed = self._worked(self._first)
        done = self._worked(self._at) - resumed
        whole = self._total - resumed
        if done < TELLING_SHARE * whole:
            return ""
        elapsed = monotonic() - self._started
        return f", about {clock(elapsed / done * max(0, whole - done))} left"

    def _worked(self, epochs: dict[str, int]) -> float:
        """The work in these epochs by run."""
        return sum(
            (count + self._early.get(i, 0)) * self._group[i].work
            for i, count in epochs.items()
        )

    def _picture(self) -> RenderableType:
        """The live display: a bar for each running group, then accuracies."""
        bars = Table.grid(padding=(0, 1))
        elapsed = clock(monotonic() - self._started)
        done = self._worked(self._at)
        left = f"{elapsed} gone{self._left()}"
        failed = f", {self._failed} failed" if self._failed else ""
        bars.add_row(
            "all", ProgressBar(max(1, self._total), done, width=30), left + failed
        )
        for group, members in self._running.items():
            if members:
                epoch = min(map(self._epoch_of, members))
                bar = ProgressBar(self._epochs[group], max(0, epoch), width=30)
                bars.add_row(self._titles[group], bar, self._where(group, epoch))
        return Group(bars, self._accuracies())

    def _accuracies(self) -> RenderableType:
        """Values so far, mean over the seeds that have begun; a line for each pair."""
        pairs: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        for (dataset, pair, label), seeds in self._seen.items():
            mean = sum(seeds.values()) / len(seeds)
            pairs[dataset, pair].append((mean, label))
        several = len({dataset for dataset, _ in pairs}) > 1
        lines = []
        for (dataset, pair), found in pairs.items():
            name = f"{dataset} {pair}" if several else pair
            parts = "  ".join(self._ranked(dataset, found))
            lines.append(Text(f"{name}: {parts}", style="dim"))
        return Group(*lines)
