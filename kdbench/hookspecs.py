"""Every hook of kdbench, on one page (entry-point group "kdbench").

The first nine return lists of typed records; names must be unique over all plugins.
The last three are events: they return nothing, and an exception in one is reported
once and changes no result. Mark an implementation with `@kdbench.hookimpl`.

A hook on its way out is marked `@hookspec(warn_on_impl=KdbenchDeprecationWarning("...
is deprecated since 1.2 and goes in 2.0: implement ..."))`, an argument that goes alone
with `warn_on_impl_args={"name": KdbenchDeprecationWarning(...)}`; it is called as
before, `kdbench plugins` shows who implements it, and `--strict` refuses that.
"""

from collections.abc import Mapping

import pluggy

from kdbench.api import (
    Compression,
    Dataset,
    Executor,
    Measure,
    Model,
    Pair,
    Renderer,
    Source,
    Strategy,
    SuiteFile,
)
from kdbench.records import Record, Run

hookspec = pluggy.HookspecMarker("kdbench")


@hookspec
def kdbench_strategies() -> list[type[Strategy]]:  # type: ignore[empty-body]
    """Strategy classes: frozen dataclasses derived from `kdbench.Strategy`.

    Example: `return [SoftTargets]`
    """


@hookspec
def kdbench_models() -> list[Model | Source]:  # type: ignore[empty-body]
    """Models that pairs can name; a Source finds further ones by a prefix.

    Example: `return [Model(name="tiny", summary="...", build=build_tiny,
    taps={"stage1": "body.0", "pooled": "head:input"}, classifier="head")]`
    """


@hookspec
def kdbench_pairs() -> list[Pair]:  # type: ignore[empty-body]
    """Teacher/student pairs, by model name.

    Example: `return [Pair(name="big-tiny", teachers=("big",), students=("tiny",))]`
    """


@hookspec
def kdbench_datasets() -> list[Dataset | Source]:  # type: ignore[empty-body]
    """Datasets; `load` is called only for a run that needs one. A Source finds others.

    Example: `return [Dataset(name="blobs", summary="...", source="...",
    task=Task(outputs=3), input_shape=(2,), load=load_blobs, embedded=True)]`
    """


@hookspec
def kdbench_suites() -> list[SuiteFile]:  # type: ignore[empty-body]
    """Suite files, by name.

    Example: `return [SuiteFile(name="mine", path=Path("/where/it/is/mine.toml"))]`
    """


@hookspec
def kdbench_measures() -> list[Measure]:  # type: ignore[empty-body]
    """Numbers about a finished student.

    Example: `return [Measure(name="top5", summary="...", unit="%", better="higher",
    compute=lambda finished: top5(finished.logits, finished.targets))]`
    """


@hookspec
def kdbench_compressions() -> list[Compression]:  # type: ignore[empty-body]
    """What can be done to a finished student (`kdbench run -s kd/NAME`).

    Example: `return [Compression(name="half", summary="...", model=pruned_by_half,
    tunes=True)]`
    """


@hookspec
def kdbench_executors() -> list[Executor]:  # type: ignore[empty-body]
    """Places where groups can run (`kdbench run --executor NAME`).

    Example: `return [Executor(name="cluster", summary="...", start=start_on_cluster)]`
    """


@hookspec
def kdbench_renderers() -> list[Renderer]:  # type: ignore[empty-body]
    """Report formats; each writes its files into the report folder.

    Example: `return [Renderer(name="xlsx", summary="...", render=write_workbook)]`
    """


@hookspec
def kdbench_run_started(run: Run) -> None:
    """A run begins (or resumes).

    Example: `def kdbench_run_started(run): tracker.begin(run.id, run.params)`
    """


@hookspec
def kdbench_epoch_finished(run: Run, epoch: int, values: Mapping[str, float]) -> None:
    """An epoch (counted from 1) ended; `values` has the headline ("top1", "rmse").

    Example: `def kdbench_epoch_finished(run, epoch, values): tracker.log(values)`
    """


@hookspec
def kdbench_run_finished(record: Record) -> None:
    """A run finished, failed or was skipped; its record is already on disk.

    Example: `def kdbench_run_finished(record): tracker.end(record.measures)`
    """
