"""Every architecture of a plan, timed once on this machine when training is over."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kdbench.api import Dataset, Finished, Model
from kdbench.engine import Stopped
from kdbench.finishing import SAMPLE
from kdbench.measure import measure_all
from kdbench.measure.size import TINY_MACS, macs, macs_of, parameters, serialised
from kdbench.plan import Plan
from kdbench.plugins import Host
from kdbench.provenance import environment, now
from kdbench.records import SpeedRecord
from kdbench.store import write_record


def measure_speed(
    plan: Plan,
    host: Host,
    folder: Path,
    device: str,
    known: Sequence[SpeedRecord],
    stop: Callable[[], bool],
) -> list[str]:
    """Time every model of the plan that has not been timed on this machine yet.

    Returns what could not be measured, and why. Raises Stopped between two models when
    `stop()` turns true.
    """
    models = {
        (run.dataset, name)
        for run in (*plan.done, *(r for g in plan.todo for r in g.runs))
        for name in (*run.students, *run.teachers)
    }
    done = [(r.dataset, r.model, r.environment) for r in known]
    problems = []
    for dataset_name, name in sorted(models):
        dataset, spec = host.dataset(dataset_name), host.model(name)
        if spec.learner == "fitted":
            continue  # timed as trained, in its run
        try:
            threads = 1 if macs_of(spec, dataset) < TINY_MACS else os.cpu_count() or 1
            here = environment(device, threads)
            if (dataset_name, name, here) in done:
                continue
            if stop():
                raise Stopped
            torch.set_num_threads(threads)
            values = _speed(spec, dataset, host, device)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - a model that cannot be timed
            problems.append(f"speed of {name}: {type(error).__name__}: {error}")
            continue
        record = SpeedRecord(
            model=name,
            dataset=dataset_name,
            measures=values,
            environment=here,
            finished_at=now(),
        )
        write_record(folder, record)
    return problems


def _speed(
    spec: Model, dataset: Dataset, host: Host, device: str
) -> dict[str, float | None]:
    """Size and speed of one model, freshly initialised."""
    module = dataset.build(spec).to(device).eval()
    if spec.deploy is not None:
        module = spec.deploy(module)
    sample = dataset.example(SAMPLE).to(device)
    finished = Finished(
        model=module,
        task=dataset.task,
        device=device,
        sample=sample,
        logits=torch.empty(0, dataset.task.outputs),
        targets=torch.empty(0, dtype=torch.int64),
        teacher_logits=None,
    )
    measures = [offer.thing for offer in host.all("measures")]
    values = measure_all(measures, "model", finished)
    return values.numbers | {
        "parameters": parameters(module),
        "macs": macs(module, sample[:1]),
        "size_bytes": len(serialised(module)),
    }
