"""What is said of an exported student: in student.json, and on a page for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kdbench import __version__
from kdbench.api import Data, Dataset, Model
from kdbench.exporting.snippets import needed, program, shown_shape
from kdbench.exporting.student import Student
from kdbench.forms.files import Deployed
from kdbench.plugins import Host
from kdbench.records import Run
from kdbench.tasks import Task

ABOUT = "student.json"
README = "README.md"

AXES = {2: "channels, length", 3: "channels, height, width"}
"""Of one item, by its dimensions."""


def header(student: Student) -> dict[str, str]:
    """What the file itself says, beside student.json."""
    names = {part["name"]: part.get("labels") for part in _parts(student.dataset.task)}
    labels = names.get("", names)
    run = student.record.run.id
    return {"kdbench_run": run, "title": student.title, "labels": json.dumps(labels)}


def described(
    student: Student,
    whole: Deployed,
    file: dict[str, Any],
    proof: dict[str, Any],
    host: Host,
) -> dict[str, Any]:
    """student.json: everything that is known of an export, as plain data."""
    record, dataset = student.record, student.dataset
    run = record.run
    plugins = _plugins(run, host)
    return {
        "format": 1,
        "kdbench": __version__,
        "title": student.title,
        "file": file,
        "input": _input(dataset, student.data, student.stored),
        "output": _output(dataset.task, whole),
        "measured": {
            "headline": record.headline.name,
            "unit": record.headline.unit,
            "test_items": record.test_items,
            "measures": record.measures,
            "finished_at": record.finished_at,
        },
        "proof": proof,
        "dataset": {
            "name": dataset.name,
            "summary": dataset.summary,
            "source": dataset.source,
            "version": dataset.version,
        },
        "built_with": {
            "input_shape": dataset.input_shape,
            "outputs": dataset.task.outputs,
            "vocabulary": dataset.vocabulary,
        },
        "recipe": run.recipe.sentence(),
        "run": {"id": run.id, **run.model_dump(mode="json")},
        "weights_sha256": record.weights_sha256,
        "plugins": plugins,
        "needs": needed(file["format"], student.network, plugins),
    }


def _plugins(run: Run, host: Host) -> list[dict[str, str]]:
    """The plugins that the network's code is from: of the model and compressions."""
    names = run.compression.split("/") if run.compression else []
    offers = [host.get("compressions", name) for name in names]
    offers.insert(0, host.get("models", run.students[0]))
    plugins = {offer.plugin.name: offer.plugin for offer in offers}
    return [
        {
            "distribution": p.distribution,
            "version": p.version,
            "file": Path(p.path).name,
        }
        for p in plugins.values()
    ]


def _input(dataset: Dataset, data: Data, stored: Tensor) -> dict[str, Any]:
    """Shape, type and range of a batch, and what normalises it. `stored` are items."""
    shape = tuple(stored.shape[1:])
    kind = str(stored.dtype).removeprefix("torch.")
    tested = [stored.min().item(), stored.max().item()]
    allowed: list[int] | None = None
    if dataset.vocabulary:
        allowed, axes = [0, dataset.vocabulary - 1], "tokens"
    else:
        axes = AXES.get(len(shape), "numbers")
        allowed = [0, 255] if kind == "uint8" else None
    return {
        "name": "inputs",
        "what": _what(dataset, data, shape),
        "shape": ["batch", *shape],
        "layout": f"batch, {axes}",
        "dtype": kind,
        "range": allowed,
        "range_of_test_items": tested,
        "mean": list(data.mean) or None,
        "std": list(data.std) or None,
    }


def _what(dataset: Dataset, data: Data, shape: tuple[int, ...]) -> str:
    """What a batch holds, and what has to be done before that."""
    cut = ""
    if tuple(data.test.inputs.shape[1:]) != shape:
        cut = f", cut to {'x'.join(map(str, shape[1:]))} from the centre"
    if dataset.vocabulary:
        return (
            f"texts as {dataset.name} stores them: token ids of its own vocabulary, "
            "padded with 0; cutting words into tokens is no part of the file"
        )
    return (
        f"items as {dataset.name} stores them ({dataset.summary}){cut}; what makes "
        "them of a user's files is no part of the file"
    )


def _output(task: Task, whole: Deployed) -> dict[str, Any]:
    """What the outputs are; means and deviations that were standardised away."""
    middle, spread = whole.middle, whole.spread
    numbers = middle is not None and spread is not None
    return {
        "name": "outputs",
        "kind": task.kind,
        "shape": ["batch", task.outputs],
        "dtype": "float32",
        "parts": list(_parts(task)),
        "mean": middle.tolist() if numbers else None,  # type: ignore[union-attr]
        "std": spread.tolist() if numbers else None,  # type: ignore[union-attr]
    }


def _parts(task: Task) -> Iterator[dict[str, Any]]:
    """Each head's columns, from `first` to before `end`; the one that there may be."""
    at = 0
    for name, one in [(h.name, h.task) for h in task.heads] or [("", task)]:
        part: dict[str, Any] = {"name": name, "first": at, "end": at + one.outputs}
        if one.kind == "classification":
            part |= {"what": "logits", "classes": one.outputs}
            part["labels"] = list(one.labels) or None
        else:
            part |= {"what": "numbers in their own unit", "unit": one.unit or None}
        yield part
        at += one.outputs


def page(about: Mapping[str, Any], spec: Model) -> str:
    """README.md: what the file is, what goes in and comes out, and how to use it."""
    file, run, dataset = about["file"], about["run"], about["dataset"]
    given, answer = about["input"], about["output"]
    shape = shown_shape(given["shape"])
    parts = "\n".join(f"- {_part_sentence(part)}" for part in answer["parts"])
    trained = f"trained by `{run['label']}` on {run['dataset']}"
    if run["strategy"] == "teacher":
        trained = f"a teacher trained on {run['dataset']}"
    elif run["teachers"]:
        trained += f", with the teacher {' and '.join(run['teachers'])}"
    inside = (
        " The file normalises them itself."
        if file["preprocessing_inside"] and given["mean"]
        else ""
    )
    if given["mean"] and not inside:
        inside = " They have to be normalised first, as below."
    return f"""# {about["title"]}

`{spec.name}`, {trained}; run `{run["id"]}`, seed {run["seed"]}, written by kdbench
{about["kdbench"]}. All that is known of it is in `{ABOUT}`.

- file: `{file["name"]}`, {file["bytes"]:,} bytes, sha256 `{file["sha256"]}`
- {spec.name}: {spec.summary}
- {dataset["name"]}: {dataset["summary"]} ({dataset["source"]})
- recipe: {about["recipe"]}

## What goes in

`{given["dtype"]}` of shape {shape} ({given["layout"]}), of any batch size:
{given["what"]}.{inside}

## What comes out

`float32` of shape {shown_shape(answer["shape"])}:

{parts}

## Use

```
pip install {" ".join(about["needs"])}
```

In this folder:

```python
{program(about, spec)}```

## Proof

{about["proof"]["sentence"]}.
"""


def _part_sentence(part: Mapping[str, Any]) -> str:
    first, end = part["first"], part["end"]
    columns = f"column {first}" if end - first == 1 else f"columns {first} to {end - 1}"
    name = f" `{part['name']}`" if part["name"] else ""
    if part["what"] == "logits":
        labels = part["labels"]
        named = f": {', '.join(labels[:10])}" if labels else ""
        more = ", ..." if labels and len(labels) > 10 else ""
        return (
            f"{columns}{name}: logits of {part['classes']} classes{named}{more}; their "
            "softmax are probabilities"
        )
    unit = f" ({part['unit']})" if part["unit"] else ""
    return f"{columns}{name}: numbers in their own unit{unit}"
