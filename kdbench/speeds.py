"""Every architecture of a plan, timed once on this machine when training is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from kdbench.api import Dataset, Finished, Measure, Model
from kdbench.engine import Stopped
from kdbench.finishing import SAMPLE
from kdbench.measure import Values, due, measure_all
from kdbench.measure.runtimes import native, noise, threads_set
from kdbench.measure.size import TINY_MACS, macs, macs_of, parameters, serialised
from kdbench.measure.speed import SPEED, headline
from kdbench.measure.timing import cores, governor, timings_of
from kdbench.plan import Plan
from kdbench.plugins import Host
from kdbench.provenance import environment, now, version
from kdbench.records import SpeedRecord, Timing, digest
from kdbench.store import write_record

SECONDS = 0.1
"""Spent on each number of each form; `kdbench profile` takes more."""

FORMS = {
    "cpu": (
        ("eager", "float32"),
        ("eager", "bfloat16"),
        ("eager", "int8"),
        ("onnx", "float32"),
        ("onnx", "int8"),
    ),
    "cuda": (
        ("eager", "float32"),
        ("eager", "bfloat16"),
        ("cuda-graph", "float32"),
        ("cuda-graph", "bfloat16"),
    ),
    "mps": (("eager", "float32"), ("eager", "bfloat16")),
}
"""What is timed on each kind of device: what takes no minutes to prepare."""

RUNTIMES = ("onnxruntime", "torchao")
"""Distributions that a form's speed depends on, beside torch."""


def measure_speed(
    plan: Plan,
    host: Host,
    folder: Path,
    device: str,
    known: Sequence[SpeedRecord],
    stop: Callable[[], bool],
) -> list[str]:
    """Time every model of the plan that has not been timed on this machine yet.

    A model is timed again where its record has no timings, other versions of the
    runtimes, or lacks a measure; optional ones are those of the suite. Returns what
    could not be measured, and why. Raises Stopped between two models when `stop()`
    turns true.
    """
    done = {(r.dataset, r.model, digest(r.environment)): r for r in known if r.timings}
    measures = [offer.thing for offer in host.all("measures")]
    problems = []
    for name, make, dataset in _models(plan, host):
        try:
            spec = make()
            if spec.learner == "fitted":
                continue  # timed as trained, in its run
            threads = 1 if macs_of(spec, dataset) < TINY_MACS else cores()
            here = environment(device, threads) | {n: version(n) for n in RUNTIMES}
            wanted = due(measures, "model", dataset.task.kind, plan.suite.measures)
            before = done.get((dataset.name, name, digest(here)))
            if before and {m.name for m in wanted} <= set(before.taken):
                continue
            if stop():
                raise Stopped
            with threads_set(threads):
                values, timings = _speed(spec, dataset, wanted, device, threads)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - a model that cannot be timed
            problems.append(f"speed of {name}: {type(error).__name__}: {error}")
            continue
        problems += [f"{name}: {problem}" for problem in values.problems]
        record = SpeedRecord(
            model=name,
            dataset=dataset.name,
            measures=values.numbers,
            lists=values.lists,
            taken=sorted(m.name for m in wanted),
            timings=timings,
            governor=governor(),
            environment=here,
            finished_at=now(),
        )
        write_record(folder, record)
    return problems


def _models(
    plan: Plan, host: Host
) -> Iterator[tuple[str, Callable[[], Model], Dataset]]:
    """Every model of a plan, once: its name on record, what gives it, and its dataset.

    Students that are compressed are models of their own: `NAME/COMPRESSION`.
    """
    runs = (*plan.done, *(run for group in plan.todo for run in group.runs))
    plain = {
        (run.dataset, name, "") for run in runs for name in run.students + run.teachers
    }
    compressed = {
        (run.dataset, run.students[0], run.compression)
        for run in runs
        if run.compression
    }
    for dataset, model, chain in sorted(plain | compressed):
        name = f"{model}/{chain}" if chain else model
        yield name, partial(host.compressed, model, chain), host.dataset(dataset)


def _speed(
    spec: Model,
    dataset: Dataset,
    measures: Sequence[Measure],
    device: str,
    threads: int,
) -> tuple[Values, list[Timing]]:
    """Size and speed of one model, freshly initialised."""
    module = dataset.build(spec).to(device).eval()
    if spec.deploy is not None:
        module = spec.deploy(module).eval()
    sample = noise(dataset, SAMPLE).to(device)
    asis = ("eager", native(module))
    usual = FORMS[torch.device(device).type]
    # nothing becomes of int8 but int8
    forms = [form for form in usual if "float32" in asis or form[1] == asis[1]]
    numbers = sorted({1, threads}) if device == "cpu" else [threads]
    wanted = [(*form, n) for form in dict.fromkeys([asis, *forms]) for n in numbers]
    timings = timings_of(module, sample, wanted, device=device, seconds=SECONDS)
    first = timings[numbers.index(threads)]
    if first.reason:
        raise RuntimeError(first.reason)
    finished = Finished(
        model=module,
        task=dataset.task,
        device=device,
        sample=sample,
        logits=torch.empty(0, dataset.task.outputs),
        targets=torch.empty(0, dtype=torch.int64),
        teacher_logits=None,
    )
    others = [measure for measure in measures if measure not in SPEED]
    names = [measure.name for measure in others]
    values = measure_all(others, "model", finished, names)
    values.numbers.update(headline(first))
    values.numbers["parameters"] = parameters(module)
    values.numbers["macs"] = macs(module, sample[:1])
    values.numbers["size_bytes"] = len(serialised(module))
    return values, timings
