"""A complete program for the page of an export: load the file, and predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kdbench.api import Model

FILE = "(file)"
"""The distribution of a plugin that is in none."""


def shown_shape(shape: list[Any]) -> str:
    """Such as "(batch, 1, 8, 8)"."""
    return f"({', '.join(map(str, shape))})"


def needed(
    form: str, network: nn.Module, plugins: Sequence[Mapping[str, str]]
) -> list[str]:
    """The packages that the program needs.

    Weights of a kind that another package made, such as int8 ones, need it too.
    """
    if form == "onnx":
        return ["numpy", "onnxruntime"]
    kinds = (type(x).__module__.partition(".")[0] for x in network.parameters())
    first = ["torch"]
    if form == "safetensors":
        names = (plugin["distribution"] for plugin in plugins)
        first = ["kdbench", *(name for name in names if name != FILE)]
    return list(dict.fromkeys([*first, *(kind for kind in kinds if kind != "torch")]))


def program(about: Mapping[str, Any], spec: Model) -> str:
    """A complete program: loads the file, and answers one item, of zeros."""
    form = about["file"]["format"]
    shape = about["input"]["shape"][1:]
    dtype = about["input"]["dtype"]
    library = "np" if form == "onnx" else "torch"
    zeros = f"{library}.zeros({shown_shape([1, *shape])}, dtype={library}.{dtype})"
    lines = {"onnx": _with_onnx, "torch-export": _with_torch}
    body = lines[form]() if form in lines else _with_weights(about, spec)
    return f"""{body}

items = {zeros}  # put yours here
for outputs in predict(items):
    for part in about["output"]["parts"]:
        values = outputs[part["first"] : part["end"]]
        if part["what"] == "logits":
            best = int(values.argmax())
            answer = part["labels"][best] if part["labels"] else best
        else:
            answer = values.tolist()
        print(part["name"] or "answer", answer, sep=": ")
"""


def _with_onnx() -> str:
    return """import json

import numpy as np
import onnxruntime

with open("student.json", encoding="utf-8") as file:
    about = json.load(file)
session = onnxruntime.InferenceSession("student.onnx")


def predict(items):
    return session.run(None, {"inputs": items})[0]
"""


def _with_torch() -> str:
    return """import json

import torch

with open("student.json", encoding="utf-8") as file:
    about = json.load(file)
network = torch.export.load("student.pt2").module()


def predict(items):
    with torch.no_grad():
        return network(items)
"""


def _with_weights(about: Mapping[str, Any], spec: Model) -> str:
    run, given = about["run"], about["input"]
    model, compression = run["students"][0], run["compression"]
    size = [str(value) for value in about["built_with"].values() if value]
    files = [
        f'Path("{p["file"]}")' for p in about["plugins"] if p["distribution"] == FILE
    ]
    host = f"Host(files=[{', '.join(files)}])" if files else "Host()"
    found = f'{host}.model("{model}")'
    if compression:
        found = f'{host}.compressed("{model}", "{compression}")'
    built = f"spec.build({', '.join(size)}).eval()"
    if spec.deploy:
        built = f"spec.deploy({built}).eval()"
    steps = ["outputs = network(items)"]
    if given["mean"]:
        view = ", ".join(["1", "-1", *["1"] * (len(given["shape"]) - 2)])
        steps = [
            'mean = torch.tensor(about["input"]["mean"])',
            'std = torch.tensor(about["input"]["std"])',
            f"items = (items.float() - mean.view({view})) / std.view({view})",
            *steps,
        ]
    if about["output"]["mean"]:
        steps += [
            'mean = torch.tensor(about["output"]["mean"])',
            'std = torch.tensor(about["output"]["std"])',
            "outputs = outputs * std + mean",
        ]
    lines = "\n".join(f"    {step}" for step in steps)
    path = "from pathlib import Path\n" if files else ""
    return f"""import json
{path}
import torch
from kdbench.plugins import Host
from safetensors.torch import load_file

with open("student.json", encoding="utf-8") as file:
    about = json.load(file)
spec = {found}
network = {built}
network.load_state_dict(load_file("student.safetensors"))


@torch.no_grad()
def predict(items):
{lines}
    return outputs
"""
