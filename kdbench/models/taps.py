"""Tapping a model: its features by name, and their shapes before any training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Model, Outputs, Tapped, UserError, unknown
from kdbench.models.shapes import ShapesOnly


def resolve(spec: Model, module: nn.Module, wanted: Sequence[str]) -> dict[str, str]:
    """Tap name -> module path, in the model's own order.

    "stages" and "preacts" mean all of them. A name that the model does not declare may
    be a module path. Raises UserError that lists what there is.
    """
    names: list[str] = []
    for name in wanted:
        if name in ("stages", "preacts"):
            several = [tap for tap in spec.taps if tap.startswith(name[:-1])]
            if name == "preacts" and not several:
                raise UserError(f"model {spec.name!r} has no preact1, preact2, ...")
            names += several
        elif name != "logits":
            names.append(name)
    modules = dict(module.named_modules())
    found = {}
    for name in sorted(set(names), key=lambda n: _order(spec, n)):
        path = spec.taps.get(name, name)
        if path.removesuffix(":input") not in modules:
            taps = [*spec.taps, "stages", "logits", *(m for m in modules if m)]
            raise unknown("tap", name, taps, f"model {spec.name!r}")
        found[name] = path
    return found


def _order(spec: Model, name: str) -> int:
    declared = list(spec.taps)
    return declared.index(name) if name in declared else len(declared)


class TappedModel:
    """A model that answers with logits and the tapped features.

    Both are float32, also where its arithmetic is in bfloat16: losses never are.
    """

    def __init__(
        self,
        spec: Model,
        module: nn.Module,
        wanted: Sequence[str] = (),
        precision: str = "float32",
    ):
        self.module = module
        self._precision = precision
        self._caught: dict[str, Tensor] = {}
        self.classifier = classifier_of(spec, module)
        self.paths = resolve(spec, module, wanted)
        for name, path in self.paths.items():
            self._tap(name, path)

    def _tap(self, name: str, path: str) -> None:
        place = self.module.get_submodule(path.removesuffix(":input"))

        def catch_input(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self._caught[name] = args[0]

        def catch_output(_module: nn.Module, _args: Any, output: Tensor) -> None:
            self._caught[name] = output

        if path.endswith(":input"):
            place.register_forward_pre_hook(catch_input)
        else:
            place.register_forward_hook(catch_output)

    def __call__(self, inputs: Tensor) -> Outputs:
        if self._precision == "bfloat16":
            with torch.autocast(inputs.device.type, torch.bfloat16):
                logits = self.module(inputs).float()
            features = {name: self._caught[name].float() for name in self.paths}
        else:
            logits = self.module(inputs)
            features = {name: self._caught[name] for name in self.paths}
        self._caught.clear()
        return Outputs(logits, MappingProxyType(features), self.classifier)


def classifier_of(spec: Model, module: nn.Module) -> nn.Linear | None:
    """The linear layer that reads the pooled features, if there is one."""
    path, end, _ = spec.taps.get("pooled", "").partition(":input")
    found = dict(module.named_modules()).get(path) if end else None
    return found if isinstance(found, nn.Linear) else None


def probe(spec: Model, wanted: Sequence[str], dataset: Dataset) -> Tapped:
    """The shapes of the wanted taps, found by one forward pass without data.

    Raises UserError where a tap does not exist, and whatever the model's own code
    raises where it cannot take the dataset's inputs.
    """
    with torch.device("meta"), torch.no_grad():
        module = dataset.build(spec)
        tapped = TappedModel(spec, module, wanted)
        with ShapesOnly():
            answer = tapped(dataset.example(2))
    shapes = {name: tuple(value.shape[1:]) for name, value in answer.features.items()}
    shapes["logits"] = tuple(answer.logits.shape[1:])
    return Tapped(
        name=spec.name,
        shapes=shapes,
        model=module,
        paths=tapped.paths,
        build=partial(dataset.build, spec),
    )
