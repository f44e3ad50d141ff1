"""What a run leaves: its record, attributed; its weights; and a teacher out of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from kdbench.api import Dataset, Model, Strategy
from kdbench.engine.build import build_students
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import predict, weights_hash
from kdbench.plugins import Host
from kdbench.provenance import now
from kdbench.records import Record, Run
from kdbench.store import read_record
from kdbench.tasks import headline_of
from kdbench.weights import drift


class NoTeacher(Exception):
    """A teacher that is not there, or not as its record says."""


class NoSource(Exception):
    """A student that another was to be made of, and that is not there."""


KEPT_ONCE = ("adapter_parameters", "peak_memory_bytes", "company")
"""Costs of which two trainings take the larger one, not the sum."""


def costs_of_both(
    first: Mapping[str, float | None], then: Mapping[str, float | None]
) -> dict[str, float | None]:
    """What a training and a further one cost together; None where one is unknown."""
    found: dict[str, float | None] = dict(first)
    for name, value in then.items():
        before = first.get(name, 0.0 if name == "graph_s" else None)
        if value is None or before is None:
            found[name] = None
        else:
            found[name] = max(before, value) if name in KEPT_ONCE else before + value
    return found


def weights_path(folder: Path, run_id: str) -> Path:
    """Where a run's student lies."""
    return folder / "weights" / f"{run_id}.safetensors"


def strategy_of(run: Run, host: Host) -> Strategy:
    """What the run trains by; a teacher is trained as `scratch` is."""
    name = "scratch" if run.is_teacher else run.strategy
    return host.strategy(name).configured(run.params)


def make_record(
    run: Run, host: Host, environment: dict[str, Any], **values: Any
) -> Record:
    """A record of this run, attributed to the plugin of its strategy."""
    name = "scratch" if run.is_teacher else run.strategy
    offer = host.get("strategies", name)
    return Record(
        id=run.id,
        run=run,
        headline=host.dataset(run.dataset).task.headline,
        family="teacher" if run.is_teacher else offer.thing.family,
        plugin=offer.plugin.source,
        environment=environment,
        finished_at=now(),
        **values,
    )


def trained_teacher(
    run: Run,
    spec: Model,
    dataset: Dataset,
    folder: Path,
    feed: Feed,
    environment: dict[str, Any],
) -> tuple[nn.Module, Tensor]:
    """The teacher that this run left, frozen, and its outputs for the test set.

    It is known by its weights' hash and its headline, measured again.
    """
    [module] = build_students(run, [spec], dataset)
    name = f"its teacher {spec.name} #{run.seed}"
    record = read_record(folder / f"{run.id}.json")
    if not isinstance(record, Record) or record.status != "finished":
        raise NoTeacher(f"{name} failed: {getattr(record, 'reason', None)}")
    module.load_state_dict(load_file(weights_path(folder, run.id)))
    if weights_hash(module) != record.weights_sha256:
        raise NoTeacher(f"{name} has other weights than its record names")
    module.to(feed.device).eval().requires_grad_(False)
    logits = predict(module, feed)
    changed = drift(
        record.headline,
        record.measures.get(record.headline.name),
        headline_of(dataset.task, logits, feed.test_targets),
        record.test_items,
        record.environment,
        environment,
    )
    if changed:
        raise NoTeacher(f"{name} {changed}")
    return module, logits
