"""Checks of compressions, executors and renderers: each does its work once."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from kdbench.api import Compression, Executor, Model, Renderer, UserError
from kdbench.config import Suite
from kdbench.conformance.beside import once, toy, why_not
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.trainings import RECIPE
from kdbench.conformance.tried import TRIED, Trial, ours, workplace
from kdbench.engine import Stopped
from kdbench.execute import make_jobs
from kdbench.job import Emit, Job
from kdbench.plan import make_plan
from kdbench.records import Recipe, Record
from kdbench.store import Results, load

# --- compressions ---------------------------------------------------------------------

BASES = (("toy-images", "convnet_14"), ("toy-vectors", "mlp_32"))
"""On what students a compression is tried, the first that it takes."""


@once
def _base(subject: OfferSubject) -> tuple[str, str] | str:
    """Data and a student that it takes, by name, or why there are none."""
    compression: Compression = subject.offer.thing
    missing = compression.missing() if compression.missing else None
    if missing:
        raise DoesNotApply(missing)
    reasons = []
    for data, name in BASES:
        try:
            packed = compression.model(ours().model(name))
        except (UserError, ValueError) as error:
            reasons.append(str(error))
            continue
        if not isinstance(packed, Model):
            return f"model() of {name} gave {packed!r}, and not a Model"
        why = why_not(toy(data), packed)
        if why is None:
            return data, name
        reasons.append(why)
    return f"it takes none of the students there are: {'; '.join(reasons)}"


@check(
    "compression",
    what="It takes a finished convnet or MLP, and what it makes of it is trained "
    "further (where it `tunes`), answers, and is measured and kept.",
    why="`kd/NAME` stands beside `kd` in every table: what fails here, fails when all "
    "training is done.",
    fix="model(base) returns dataclasses.replace(base, name=..., from_teacher=..., "
    "deploy=...): from_teacher(student, input_shape, outputs) is handed the finished "
    "student and returns the compressed network.",
)
def compresses(subject: OfferSubject) -> None:
    found = _base(subject)
    if isinstance(found, str):
        raise Broken(found)
    dataset, base = toy(found[0]), ours().model(found[1])
    packed: Compression = subject.offer.thing
    if packed.model(base).from_teacher is None:
        raise Broken("its model has no from_teacher, which is handed the student")
    record = Trial(dataset, base, base, packed).record()
    if record.run.compression != packed.name + TRIED:
        raise Broken(f"no student was compressed by it, only {record.run.label}")


@check(
    "compression",
    what="model(base) leaves `base` as it is, and gives a name of its own.",
    why="The student that is not compressed stands in the same table, and files are "
    "named after their models.",
    fix="Use dataclasses.replace(base, name=f'{base.name}/NAME', ...).",
)
def own_model(subject: OfferSubject) -> None:
    found = _base(subject)
    if isinstance(found, str):
        raise DoesNotApply("it takes no student, see `compresses`")
    base = ours().model(found[1])
    before = dict(vars(base))
    packed = subject.offer.thing.model(base)
    changed = [key for key, value in before.items() if getattr(base, key) != value]
    if changed:
        raise Broken(f"model() changes {', '.join(changed)} of the model it is given")
    if packed.name == base.name:
        raise Broken(f"what it makes of {base.name!r} is called so, too")


# --- executors ------------------------------------------------------------------------

SUITE = Suite(
    name="tried",
    datasets=("digits",),
    pairs=("digits-mlp",),
    strategies=("scratch",),
    seeds=1,
    recipe=Recipe(**{**RECIPE, "epochs": 1, "batch_size": 64}),
)
"""What executors run: only what there is in any process."""


@contextmanager
def _jobs() -> Iterator[tuple[list[Job], Path]]:
    with workplace() as folder:
        host = ours()
        plan = make_plan(SUITE, host, {})
        items = {"digits": 1347}
        yield make_jobs(plan, host, items, folder, None, "cpu", 60.0, 1), folder


@check(
    "executor",
    what="start() runs every job to its records, tells of them (`emit`), puts teachers "
    "before their students, and returns when all have ended.",
    why="What is not run is missing from the tables, and a session that is not told "
    "does not know that anything failed.",
    fix="Call kdbench.execute.here with the jobs of each process, or "
    "kdbench.perform.perform(job, host, emit, stop) with each, in the order of "
    "`job.needs`.",
)
def runs_jobs(subject: OfferSubject) -> None:
    executor: Executor = subject.offer.thing
    told: list[Record] = []
    with _jobs() as (jobs, folder):
        executor.start(jobs, 1, subject.host, _keeping(told), lambda: False)
        wanted = {run.id: run.label for job in jobs for run in job.group.runs}
        there = {path.stem for path in folder.glob("*.json")}
        lost = [label for i, label in wanted.items() if i not in there]
        if lost:
            raise Broken(f"no record of {', '.join(lost)} when it returned")
        failed = [r for r in load([folder]).records if r.status != "finished"]
    if failed:
        raise Broken(f"{failed[0].run.label} {failed[0].status}: {failed[0].reason}")
    untold = [wanted[i] for i in wanted if i not in {record.id for record in told}]
    if untold:
        raise Broken(f"it did not emit the record of {', '.join(untold)}")


def _keeping(told: list[Record]) -> Emit:
    def emit(event: tuple[object, ...]) -> None:
        if event[0] == "record" and isinstance(event[1], Record):
            told.append(event[1])

    return emit


@check(
    "executor",
    what="start() raises kdbench.engine.Stopped when `stop()` is true, and soon.",
    why="By that Ctrl-C and a time limit end a run with everything checkpointed.",
    fix="Hand `stop` on to what performs the jobs, ask it between jobs, and let "
    "Stopped pass.",
)
def stops(subject: OfferSubject) -> None:
    with _jobs() as (jobs, folder):
        try:
            subject.offer.thing.start(jobs, 1, subject.host, _keeping([]), lambda: True)
        except Stopped:
            return
        made = len(list(folder.glob("*.json")))
        raise Broken(f"it returned as if all had ended, with {made} records")


# --- renderers ------------------------------------------------------------------------


def _results() -> Results:
    """A teacher and two students, as a small suite leaves them; anew each time."""
    return copy.deepcopy(_trained())


@cache
def _trained() -> Results:
    host = ours()
    teacher, student = host.model("convnet_14"), host.model("convnet_6")
    controls = ("scratch", "label_smoothing")
    trial = Trial(toy("toy-images"), teacher, student, strategies=controls)
    return trial.results()


@check(
    "renderer",
    what="render() writes its files into the folder it is given, and nowhere else, and "
    "returns their paths.",
    why="A report is a folder that is moved, mailed and published: what lies elsewhere "
    "is lost, or is somebody's file that was written over.",
    fix="Make every path by folder / name, and return those that were written.",
)
def own_folder(subject: OfferSubject) -> None:
    renderer: Renderer = subject.offer.thing
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        room = Path(name).resolve()
        folder, place = room / "report", room / "here"
        folder.mkdir()
        place.mkdir()
        os.chdir(place)
        try:
            found = renderer.render(_results(), folder)
        finally:
            os.chdir(here)
        written = {p for p in room.rglob("*") if p.is_file()}
        outside = sorted(p for p in written if not p.is_relative_to(folder))
        if outside:
            raise Broken(f"it writes {outside[0].relative_to(room)} outside its folder")
        _check_paths([place / path for path in found], written)


def _check_paths(said: list[Path], written: set[Path]) -> None:
    absent = [path.name for path in said if path.resolve() not in written]
    if absent:
        raise Broken(f"it returns {', '.join(absent)}, and there is no such file")
    if not said:
        raise Broken(f"it returns no path; it wrote {len(written)} files")


@check(
    "renderer",
    what="Rendered once more, the same results give the same files, byte for byte.",
    why="Published reports are kept in git and compared: what changes by itself hides "
    "what has changed.",
    fix="Print no time of now and no random id, sort what has no order (sets), and "
    "take dates from the records (`finished_at`).",
)
def same_twice(subject: OfferSubject) -> None:
    renderer: Renderer = subject.offer.thing
    files = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            renderer.render(_results(), folder)
            paths = [path for path in folder.rglob("*") if path.is_file()]
            files.append({str(p.relative_to(folder)): p.read_bytes() for p in paths})
    first, second = files
    only = sorted(first.keys() ^ second.keys())
    if only:
        raise Broken(f"{only[0]} is written only once")
    other = [name for name in sorted(first) if first[name] != second[name]]
    if other:
        raise Broken(f"{', '.join(other)}: other bytes the second time")
