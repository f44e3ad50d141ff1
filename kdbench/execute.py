"""Drives groups to records: what is open becomes jobs, and an executor runs them.

In this process, in worker processes, later on a cluster: the jobs are the same.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from kdbench.api import Dataset, Executor, UserError, hookimpl
from kdbench.claims import claimed, put_off
from kdbench.config import Suite, only_systems
from kdbench.data.checks import loaded
from kdbench.engine import Stopped
from kdbench.engine.feed import Feed
from kdbench.engine.phases import Schedule
from kdbench.engine.teacher import weights_hash
from kdbench.job import Emit, Job
from kdbench.measure.size import TINY_MACS, macs_of
from kdbench.memory import available, fitting
from kdbench.perform import perform
from kdbench.plan import Group, Plan
from kdbench.plugins import Host
from kdbench.recording import strategy_of, weights_path
from kdbench.records import Recipe, Record, Run, digest

TINY_GROUP = 8

LEFT_OUT = "left out"
"""How the notes on systems without data begin."""

STEP_MACS = 3e5
"""What a step costs beside the model's arithmetic, in multiply-accumulates an item."""


def find_device(name: str) -> str:
    """A device that is there, "auto" being the fastest kind; UserError otherwise."""
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        return next((d for d in ("cuda", "mps") if d in there), "cpu")
    if name not in there:
        raise UserError(
            f"device {name!r} is not there; this machine has: {', '.join(there)} "
            "(--device auto takes the fastest)"
        )
    return name


def check_data(
    suite: Suite, host: Host, data_dir: Path | None, download: bool
) -> tuple[Suite, dict[str, int], list[str]]:
    """Load every dataset of the suite once, before anything starts.

    Returns the suite, training items by dataset, and what a user must know. Of several
    systems those whose data are missing are left out, and said so. Raises UserError
    where nothing is left, and where data are broken or do not suit the recipe.
    """
    kept, missing, notes = [], [], []
    items = {}
    for part in suite.parts:
        there = []
        for name in part.datasets:
            dataset = host.dataset(name)
            try:
                data = loaded(dataset, data_dir, download)
            except UserError as error:
                missing.append((part.title, str(error)))
                continue
            there.append(name)
            items[name] = len(data.train.targets)
            notes += [f"{name}: {note}" for note in data.notes]
            try:
                _check_size(dataset, part.recipe)
                Feed(data, dataset.task, part.recipe, 0, torch.device("cpu"))
            except ValueError as error:
                raise UserError(f"dataset {name!r} with this recipe: {error}") from None
        if there:
            kept.append(part.model_copy(update={"datasets": tuple(there)}))
    if not kept or (missing and not suite.systems):
        raise UserError("\n".join(dict.fromkeys(why for _, why in missing)))
    left_out = [f"{LEFT_OUT}: {title}: {why}" for title, why in missing]
    if missing:
        suite = only_systems(suite, kept)
    return suite, items, list(dict.fromkeys(notes)) + left_out


def _check_size(dataset: Dataset, recipe: Recipe) -> None:
    """ValueError where the recipe's images are not those that models are built for."""
    size = dataset.input_shape[1:]
    if recipe.image_size and not recipe.resized_crop:
        raise ValueError("image_size is that of resized_crop = true, which is not set")
    if recipe.image_size and (recipe.image_size,) * 2 != size:
        raise ValueError(
            f"image_size = {recipe.image_size}, and models are built for "
            f"{dataset.input_shape}"
        )
    if dataset.stored_shape and not recipe.image_size:
        raise ValueError(
            f"images are stored as {dataset.stored_shape}: give it "
            f"resized_crop = true and image_size = {size[0]}"
        )


def make_jobs(
    plan: Plan,
    host: Host,
    items: Mapping[str, int],
    folder: Path,
    data_dir: Path | None,
    device: str,
    checkpoint_every_s: float,
    threads: int | None = None,
) -> list[Job]:
    """One job for each open group: those that others need first, then the longest.

    `items` are the training items of each dataset, `threads` those of each process
    instead of the rule's.
    """
    open_ids = {run.id for group in plan.todo for run in group.runs}
    room = available(device)
    jobs: list[tuple[int, float, Job]] = []
    for group in (*plan.todo, *plan.again):
        dataset = host.dataset(group.runs[0].dataset)
        names = {m for run in group.runs for m in (*run.students, *run.teachers)}
        size = {name: macs_of(host.model(name), dataset) for name in names}
        tiny = max(size.values()) < TINY_MACS and device == "cpu"
        schedules = {run.id: _schedule(run, host) for run in group.runs}
        trained = [
            size[m] * schedules[run.id].passes / len(run.students)
            for run in group.runs
            for m in run.students
            if not (run.measured_only or group.again)
        ]
        asked = [size[m] for run in group.teachers for m in run.students]
        # backwards costs twice a forward pass; teachers answer once for the group
        work = items[dataset.name] * (
            sum(STEP_MACS + 3 * one for one in trained) + sum(asked)
        )
        early = {i: -s.first for i, s in schedules.items() if s.first < 0}
        job = Job(
            group=group,
            folder=folder,
            data_dir=data_dir,
            device=device,
            threads=threads or (1 if tiny else os.cpu_count() or 1),
            plugin_files=host.files,
            plugin_names=host.only,
            checkpoint_every_s=checkpoint_every_s,
            work=work / len(group.runs) / _passes_of(group, host),
            early=early,
            needs=frozenset(r.id for r in (*group.teachers, *group.sources)) & open_ids,
        )
        beside = job.threads == 1 and device == "cpu"
        at_once = (os.cpu_count() or 1) if beside else 1
        parts = [
            dataclasses.replace(part, group=fits)
            for part in _parts(job)
            for fits in fitting(part.group, host, room, device, at_once)
        ]
        jobs += [(group.runs[0].rank, -work, part) for part in parts]
    return [job for *_, job in sorted(jobs, key=lambda row: row[:2])]


def _schedule(run: Run, host: Host) -> Schedule:
    """When the phases of the run's strategy are."""
    phases = strategy_of(run, host).phases()
    return Schedule(phases, run.recipe, len(run.students))


def _passes_of(group: Group, host: Host) -> int:
    """How many of the recipe's epochs one pass of a fitted student stands for."""
    run = group.runs[0]
    fitted = host.model(run.students[0]).learner == "fitted"
    return run.recipe.epochs if fitted else 1


def _parts(job: Job) -> list[Job]:
    """A tiny group in halves or thirds, so that every core has its share.

    Beyond eight learners sharing a teacher saves little, and no bit depends on company.
    """
    runs = job.group.runs
    count = (
        -(-len(runs) // TINY_GROUP) if job.threads == 1 and job.device == "cpu" else 1
    )
    if count == 1:
        return [job]
    parts = [runs[k::count] for k in range(count)]
    return [
        dataclasses.replace(
            job,
            group=dataclasses.replace(job.group, id=digest([job.id, k]), runs=part),
        )
        for k, part in enumerate(parts)
    ]


def usable(folder: Path, records: Iterable[Record], host: Host) -> dict[str, Record]:
    """Finished records by id; a teacher counts only with its weights, unchanged."""
    found = {}
    for record in records:
        if record.status != "finished":
            continue
        if record.run.is_teacher and not _weights_intact(folder, record, host):
            continue
        found[record.id] = record
    return found


def _weights_intact(folder: Path, record: Record, host: Host) -> bool:
    run = record.run
    with suppress(Exception):  # damaged in any way: the teacher is trained again
        dataset = host.dataset(run.dataset)
        spec = host.model(run.students[0])
        module = dataset.build(spec)
        module.load_state_dict(load_file(weights_path(folder, run.id)))
        return weights_hash(module) == record.weights_sha256
    return False


def split(job: Job) -> list[Job]:
    """One job for each run, to find the one that takes its process down."""
    return [
        dataclasses.replace(
            job,
            group=dataclasses.replace(job.group, id=run.id, runs=(run,)),
        )
        for run in job.group.runs
    ]


@hookimpl
def kdbench_executors() -> list[Executor]:
    from kdbench.workers import in_workers

    return [
        Executor(
            name="local",
            summary="worker processes on this machine",
            start=in_workers,
        ),
        Executor(
            name="here", summary="this process, one job after another", start=here
        ),
    ]


def here(
    jobs: Sequence[Job],
    workers: int,  # noqa: ARG001 - one job at a time
    host: Host,
    emit: Emit,
    stop: Callable[[], bool],
) -> None:
    """Run the jobs in this process, in order (which puts teachers first).

    Raises Stopped, with everything checkpointed, when `stop()` turns true.
    """
    held: set[str] = set()

    def tell(event: tuple[Any, ...]) -> None:
        if event[0] == "held":
            held.add(event[1].id)
        emit(event)

    for job in jobs:
        if stop():
            raise Stopped
        if put_off(job, held, tell):
            continue
        with claimed(job, tell) as mine:
            if mine:
                perform(mine, host, tell, stop)
