"""What `list`, `show`, `plan` and `info` print."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdbench.admission import KINDS
from kdbench.api import (
    Dataset,
    Measure,
    Model,
    Pair,
    Strategy,
    SuiteFile,
    UserError,
    unknown,
)
from kdbench.catalogue import (
    extra_cost,
    field_comments,
    formula,
    papers_of,
    presets_of,
    taps_of,
    tasks_of,
)
from kdbench.config import Suite, read_suite
from kdbench.loading import not_loaded
from kdbench.measure.size import size_of
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.report.terminal import wide_console

COLUMNS = {
    "strategies": ("name", "family", "paper", "plugin"),
    "models": ("name", "parameters", "macs", "taps", "summary", "plugin"),
    "pairs": (
        "name",
        "teachers",
        "students",
        "parameters",
        "macs",
        "summary",
        "plugin",
    ),
    "datasets": ("name", "summary", "inputs", "task", "source", "plugin"),
    "suites": ("name", "title", "plugin"),
    "measures": ("name", "summary", "unit", "better", "optional", "plugin"),
    "compressions": ("name", "summary", "plugin"),
    "executors": ("name", "summary", "plugin"),
    "renderers": ("name", "summary", "plugin"),
}


SIZED_BY = "cifar100"
"""Whose inputs and classes the sizes of models are given for, unless one is named."""


def show_list(host: Host, kind: str, as_json: bool, by: str = SIZED_BY) -> None:
    """All of one kind, as a table or JSON; sizes are for the inputs of dataset `by`."""
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    rows = []
    sized = kind in ("models", "pairs")
    for offer in host.all(kind):
        row = _facts(offer.thing)
        if sized:
            row |= _sizes(host, offer.thing, host.dataset(by))
        row["plugin"] = offer.plugin.distribution
        rows.append({key: row[key] for key in COLUMNS[kind]})
    if as_json:
        _json(rows)
        return
    left_out = ("teachers", "students") if kind == "pairs" else ()  # `show` has them
    columns = [name for name in COLUMNS[kind] if name not in left_out]
    titles = [f"{c} (M)" if c in ("parameters", "macs") else c for c in columns]
    _table(titles, [[_cell(name, row[name]) for name in columns] for row in rows])
    if sized:
        dataset = host.dataset(by)
        shape = _text(dataset.input_shape)
        outputs = f"{dataset.task.outputs} outputs"
        print_line(f"parameters and MACs for {by}: inputs of {shape}, {outputs}")
    for offer in host.sources(kind):
        print_line(f"and {offer.thing.name}:...: {offer.thing.summary}")


def _sizes(host: Host, thing: Model | Pair, dataset: Dataset) -> dict[str, Any]:
    """Parameters and MACs; of a pair, those of the leading model on each side."""
    if isinstance(thing, Model):
        count, multiplications = size_of(thing, dataset)
        return {"parameters": count, "macs": multiplications}
    leading = [host.model(names[0]) for names in (thing.teachers, thing.students)]
    sizes = [size_of(model, dataset) for model in leading]
    return {
        "parameters": tuple(count for count, _ in sizes),
        "macs": tuple(multiplications for _, multiplications in sizes),
    }


def _cell(key: str, value: Any) -> str:
    if key not in ("parameters", "macs"):
        return _text(value)
    if isinstance(value, tuple):  # of a pair
        return " -> ".join(_cell(key, side) for side in value)
    return "-" if value is None else f"{value / 1e6:.4g}"


def _facts(thing: Any) -> dict[str, Any]:
    """What a list shows of a thing."""
    if isinstance(thing, type) and issubclass(thing, Strategy):
        return {"name": thing.name, "family": thing.family, "paper": thing.paper}
    if isinstance(thing, SuiteFile):
        return {"name": thing.name, "title": read_suite(thing.path).title}
    row = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
    if isinstance(thing, Model):
        row["taps"] = list(thing.taps)
        row["made from its teacher"] = "yes" if row.pop("from_teacher") else ""
        row["deployed as another network"] = "yes" if row.pop("deploy") else ""
        row["trained elsewhere"] = "yes" if row.pop("weights") else ""
        row["probabilities"] = "yes" if thing.probabilities else "no"
    if isinstance(thing, Measure):
        row["optional"] = "yes" if thing.optional else ""
    if isinstance(thing, Dataset):
        row["inputs"] = row.pop("input_shape")
        row["task"] = thing.task.sentence()
    return row


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        numbers = value and isinstance(value[0], int)
        return ("x" if numbers else ", ").join(map(str, value)) or "-"
    return str(value)


def show_one(host: Host, name: str) -> None:
    """Everything about the thing of this name, of whatever kind."""
    prefix = name.partition(":")[0] if ":" in name else ""
    kinds = [
        kind
        for kind in KINDS
        if name in host.names(kind)
        or prefix in [offer.thing.name for offer in host.sources(kind)]
        or (kind == "strategies" and "+" in name)
    ]
    if not kinds:
        every = [n for kind in KINDS for n in host.names(kind)]
        every += [f"{o.thing.name}:..." for k in KINDS for o in host.sources(k)]
        missing = unknown("name", name, every)
        raise UserError(f"{missing}{not_loaded(host.plugins)}")
    for kind in kinds:
        offer = host.get(kind, name)
        console = wide_console()
        source = f"{offer.plugin.distribution} {offer.plugin.version}"
        console.print(Text(f"{name} ({kind}, from {source})", style="bold"))
        thing = offer.thing
        if isinstance(thing, type) and issubclass(thing, Strategy):
            _show_strategy(console, thing)
        elif isinstance(thing, SuiteFile):
            console.print(thing.path.read_text(encoding="utf-8"), markup=False)
        elif isinstance(thing, Pair):
            _show_facts(console, _facts(thing))
            for model in dict.fromkeys((*thing.teachers, *thing.students)):
                _show_facts(console, _model_facts(host, host.model(model)))
        elif isinstance(thing, Model):
            _show_facts(console, _model_facts(host, thing))
        else:
            _show_facts(console, _facts(thing))


def _model_facts(host: Host, model: Model) -> dict[str, Any]:
    """Its facts, with the exact counts."""
    sizes = _sizes(host, model, host.dataset(SIZED_BY))
    known = {key: value for key, value in sizes.items() if value is not None}
    return _facts(model) | {
        f"{k} for {SIZED_BY}": f"{v:,.0f}" for k, v in known.items()
    }


def _show_facts(console: Console, facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        said = value not in (None, "", 0, False)
        if said and not callable(value):
            console.print(f"  {key}: {_text(value)}", markup=False, highlight=False)


def _show_strategy(console: Console, strategy: type[Strategy]) -> None:
    for text in (formula(strategy), inspect.getdoc(strategy)):
        if text:
            console.print(text, markup=False, highlight=False)
            console.print()
    _show_facts(
        console,
        {
            "family": strategy.family,
            "paper": strategy.paper,
            "reference": "\n    ".join(
                str(p) for p in papers_of(strategy) if p.title not in strategy.paper
            ),
            "tasks": tasks_of(strategy),
            "reads": taps_of(strategy),
            "costs beyond a student and its labels": extra_cost(strategy),
            "presets": presets_of(strategy),
            "students": [k for k in ("gradient", "fitted") if strategy.teaches(k)],
            "level": 4 if strategy.drives_itself() else "1-3 (trains in lockstep)",
        },
    )
    notes = field_comments(strategy)
    rows = [
        [name, repr(default), notes.get(name, "")]
        for name, default in strategy.parameters().items()
    ]
    if rows:
        console.print()
        _table(["hyper-parameter", "default", "unit, range, source"], rows)


def show_plan(host: Host, suite: Suite, out: Path) -> None:
    """The grid: what is done, what is open, and an estimate of the rest."""
    from kdbench.execute import usable
    from kdbench.plan import make_plan, results_folder
    from kdbench.session import known_records

    console = wide_console()
    folder = results_folder(out, suite)
    records = known_records(folder)
    plan = make_plan(suite, host, usable(folder, records, host))
    rows = []
    for group in plan.todo:
        labels = ", ".join(dict.fromkeys(run.label for run in group.runs))
        rows.append([group.title, str(len(group.runs)), labels])
    console.print(
        f"suite {suite.name}: {suite.title or '-'}", markup=False, highlight=False
    )
    for part in suite.parts:
        words = f"{part.title}: " if suite.systems else ""
        console.print(f"{words}{part.recipe.sentence()}", highlight=False, markup=False)
    if rows:
        _table(["open group", "runs", "trained side by side"], rows)
    for text in dict.fromkeys(
        f"{r.label} on {r.pair}: {why}" for r, why in plan.skipped
    ):
        console.print(f"skipped: {text}", markup=False, highlight=False)
    for note in plan.notes:
        console.print(note, highlight=False)
    open_runs = [run for group in plan.todo for run in group.runs]
    trained = [run for run in open_runs if not run.measured_only]
    epochs = sum(run.recipe.epochs * len(run.students) for run in trained)
    console.print(
        f"{len(open_runs)} runs to do, {len(plan.done)} done, "
        f"{len(plan.skipped)} skipped; {epochs:,} student epochs to train"
        f"{_estimate(epochs, records)}",
        highlight=False,
    )


def _estimate(epochs: int, records: list[Record]) -> str:
    """Time by what this folder's runs have cost so far, if any has finished."""
    spent = [
        (record.cost.get("train_shared_s"), record.cost.get("student_epochs"))
        for record in records
        if record.status == "finished"
    ]
    known = [(s, e) for s, e in spent if s is not None and e]
    if not known or not epochs:
        return ""
    rate = sum(s for s, _ in known) / sum(e for _, e in known)
    return f", about {rate * epochs:,.0f} s of one worker by the runs done so far"


def show_info(host: Host, data_dir: Path | None, as_json: bool) -> None:
    """Machine, versions, devices, and which datasets are found."""
    import torch

    from kdbench.execute import find_device
    from kdbench.provenance import environment, version

    device = find_device("auto")
    facts: dict[str, Any] = environment(device, torch.get_num_threads())
    libraries = ("torchvision", "pandas", "matplotlib", "scikit-learn", "pluggy")
    for name in (*libraries, "onnxruntime", "torchao", "nvidia-ml-py"):
        facts[name] = version(name)
    data = {}
    for offer in host.all("datasets"):
        dataset = offer.thing
        if dataset.embedded:
            data[dataset.name] = "embedded"
            continue
        try:
            if dataset.locate:
                data[dataset.name] = f"found in {dataset.locate(data_dir)}"
            else:
                dataset.load(data_dir, False)
                data[dataset.name] = f"found in {data_dir}"
        except UserError as error:
            data[dataset.name] = f"not found: {str(error).splitlines()[0]}"
    if as_json:
        _json({**facts, "datasets": data})
        return
    rows = [[key, "-" if value is None else str(value)] for key, value in facts.items()]
    _table(["", "this machine"], rows)
    _table(["dataset", ""], [[key, value] for key, value in data.items()])


def print_line(text: str) -> None:
    wide_console().print(text, markup=False, highlight=False, soft_wrap=True)


def _table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    wide_console().print(table)


def _json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")
