"""Every hook of version 1."""

from collections.abc import Mapping
from pathlib import Path

from kdbench import (
    Compression,
    Dataset,
    Executor,
    Measure,
    Model,
    Pair,
    Record,
    Renderer,
    Run,
    Source,
    Strategy,
    SuiteFile,
    hookimpl,
)
from kdbench_plugin_v1 import data, loops, networks, numbers, places, strategies

HEARD: list[tuple[str, str]] = []
"""What the events told: which, and of whom."""


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [
        strategies.Soft,
        strategies.Hints,
        strategies.Peers,
        strategies.Views,
        strategies.Phased,
        loops.Loop,
    ]


@hookimpl
def kdbench_models() -> list[Model | Source]:
    wide = Source(name="v1wide", summary="a network by its width", find=networks.find)
    return [networks.dense("v1_teacher", 24), networks.dense("v1_student", 8), wide]


@hookimpl
def kdbench_datasets() -> list[Dataset | Source]:
    sized = Source(name="v1blobs", summary="blobs by their number", find=data.find)
    return [data.blobs("v1_blobs", 96), sized]


@hookimpl
def kdbench_pairs() -> list[Pair]:
    return [
        Pair(
            name="v1-pair",
            teachers=("v1_teacher",),
            students=("v1_student",),
            assistants=("v1wide:16",),
            summary="two dense networks",
        )
    ]


@hookimpl
def kdbench_suites() -> list[SuiteFile]:
    return [SuiteFile(name="v1", path=Path(__file__).with_name("v1.toml"))]


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [numbers.SECOND_BEST, numbers.SPREAD]


@hookimpl
def kdbench_compressions() -> list[Compression]:
    return [
        Compression(
            name="v1_rounded",
            summary="weights rounded to 1/64",
            model=networks.rounded,
            tunes=False,
        )
    ]


@hookimpl
def kdbench_executors() -> list[Executor]:
    summary = "in this process, counted"
    return [Executor(name="v1_place", summary=summary, start=places.start)]


@hookimpl
def kdbench_renderers() -> list[Renderer]:
    summary = "a line for each run"
    return [Renderer(name="v1_lines", summary=summary, render=places.render)]


@hookimpl
def kdbench_run_started(run: Run) -> None:
    HEARD.append(("started", run.label))


@hookimpl
def kdbench_epoch_finished(run: Run, epoch: int, values: Mapping[str, float]) -> None:
    HEARD.append((f"epoch {epoch} {' '.join(values)}", run.label))


@hookimpl
def kdbench_run_finished(record: Record) -> None:
    HEARD.append((record.status, record.run.label))
