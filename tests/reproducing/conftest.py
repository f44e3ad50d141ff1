"""Published folders: a tiny one that was really trained, and made-up ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.records import Recipe, Record, Run
from kdbench.store import load, write_record

SMALL = {"pairs": ["digits-mlp"], "strategies": ["scratch", "kd"], "seeds": 3}


@pytest.fixture(scope="session")
def published(run_digits, tmp_path_factory) -> Path:
    """scratch and kd on three seeds, two epochs: never to be changed."""
    out = tmp_path_factory.mktemp("published")
    failed, _ = run_digits(out, **SMALL)
    assert failed == 0
    return out / "digits"


@pytest.fixture
def copy(published, tmp_path) -> Path:
    """The records alone, as they are published, to be changed by a test."""
    folder = tmp_path / "reference" / "digits"
    folder.mkdir(parents=True)
    for path in published.glob("*.json"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def edit(copy) -> Callable[..., None]:
    """Change every record of the copy that is chosen, whole and sealed."""

    def change(chosen: Callable[[Record], bool], new: Callable[[Record], dict]) -> None:
        found = [record for record in load([copy]).records if chosen(record)]
        assert found
        for record in found:
            changed = record.model_copy(update=new(record))
            if changed.run.id != record.id:
                (copy / f"{record.id}.json").unlink()
                changed = changed.model_copy(update={"id": changed.run.id})
            write_record(copy, changed)

    return change


def made_up(label: str = "kd", seed: int = 0, **changes) -> Record:
    """A record of a run that nobody trained."""
    values = {
        "dataset": "digits",
        "pair": "digits-mlp",
        "teachers": ("mlp_bn_256_128",),
        "students": ("mlp_bn_8_8",),
        "strategy": label.partition("[")[0],
        "label": label,
        "params": {},
        "seed": seed,
        "recipe": Recipe(epochs=2),
        "teacher_runs": (),
        "code": {"strategy": "0"},
    }
    record = {k: v for k, v in changes.items() if k not in Run.model_fields}
    run = Run(**{**values, **{k: v for k, v in changes.items() if k not in record}})
    known = {
        "status": "finished",
        "family": "f",
        "plugin": {},
        "environment": {
            "device": "cpu",
            "threads": 1,
            "cpu": "A",
            "torch": "2",
            "numpy": "2",
            "machine": "x86_64",
        },
        "finished_at": "2026-01-01T00:00:00+00:00",
        "curves": {"loss/kd": [2.0, 1.0], "top1": [70.0, 80.0]},
        "measures": {"top1": 80.0, "nll": 0.5, "latency_ms": 0.1},
        "lists": {"per_class_top1": [70.0, None]},
        "cost": {"train_s": 6.0, "student_epochs": 2.0},
        "test_items": 450,
        "weights_sha256": "ab" * 32,
    }
    return Record(id=run.id, run=run, **{**known, **record})


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    return made_up
