"""Checks of where a model is tapped: what strategies that match features are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench.conformance.beside import once
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.offered_models import ITEMS, networks
from kdbench.conformance.targets import OfferSubject
from kdbench.models.taps import classifier_of

OURS = re.compile(r"stem|stage\d+|preact\d+|maps|pooled")
"""The names of taps that strategies know."""


@contextmanager
def tapped(network: nn.Module, taps: Mapping[str, str]) -> Iterator[list[_Caught]]:
    """Everything that a forward pass shows at these places, in its order."""
    caught: list[_Caught] = []

    def note(name: str, value: object) -> None:
        was = value.clone() if isinstance(value, Tensor) else None
        caught.append(_Caught(name, value, was))

    handles = []
    for name, path in taps.items():
        place = network.get_submodule(path.removesuffix(":input"))
        if path.endswith(":input"):
            pre: Callable[..., None] = lambda _m, args, n=name: note(n, args[0])  # noqa: E731
            handles.append(place.register_forward_pre_hook(pre))
        else:
            post: Callable[..., None] = lambda _m, _a, out, n=name: note(n, out)  # noqa: E731
            handles.append(place.register_forward_hook(post))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Caught:
    """What a tap showed: the tensor, and a copy of it as it was then."""

    name: str
    value: object
    was: Tensor | None


@once
def _features(subject: OfferSubject) -> list[_Caught]:
    found = networks(subject)
    model = found.model
    if not model.taps:
        raise DoesNotApply("it declares no taps")
    network = found.fresh()
    modules = dict(network.named_modules())
    absent = [
        f"{name} = {path!r}"
        for name, path in model.taps.items()
        if path.removesuffix(":input") not in modules
    ]
    if absent:
        raise Broken(f"no such module: {', '.join(absent)}")
    with tapped(network, model.taps) as caught, torch.no_grad():
        network(found.inputs)
    return caught


@check(
    "model",
    what="Every tap is a module that the forward pass goes through, the taps are in "
    "its order, stages are stage1, stage2, ... without a gap, and each shows a tensor "
    "with the batch first; `pooled` is (B, D).",
    why="Strategies match stage by stage and build layers by these shapes: what is out "
    "of order is matched with the wrong stage, and trains.",
    fix="List `taps` as the data pass them: stem, preact1, stage1, ..., maps, pooled. "
    "A module that hands on a tuple is tapped where a tensor leaves it, or by "
    '"PATH:input" of the next.',
)
def taps(subject: OfferSubject) -> None:
    caught, model = _features(subject), subject.offer.thing
    order = list(dict.fromkeys(one.name for one in caught))
    idle = [name for name in model.taps if name not in order]
    if idle:
        raise Broken(f"the forward pass does not go through {', '.join(idle)}")
    declared = list(model.taps)
    for group in {_group(name) for name in declared}:
        mine, passed = (
            [name for name in names if _group(name) == group]
            for names in (declared, order)
        )
        if mine != passed:
            said = f"declared {', '.join(mine)}; passed {', '.join(passed)}"
            raise Broken(f"they are not in the order of the forward pass: {said}")
    for kind in ("stage", "preact"):
        names = [name for name in declared if re.fullmatch(rf"{kind}\d+", name)]
        wanted = [f"{kind}{k + 1}" for k in range(len(names))]
        if names != wanted:
            raise Broken(f"{', '.join(names)} should be {', '.join(wanted)}")
    wrong = list(filter(None, map(_ill_shaped, caught)))
    if wrong:
        raise Broken("; ".join(wrong))


def _group(name: str) -> str:
    """Taps of one group are in order: our names, and others that differ in a number."""
    return "" if OURS.fullmatch(name) else name.rstrip("0123456789")


def _ill_shaped(one: _Caught) -> str | None:
    value = one.value
    if not isinstance(value, Tensor):
        return f"{one.name} is a {type(value).__name__} and not a tensor"
    shape = tuple(value.shape)
    if not value.is_floating_point():
        return f"{one.name} is {value.dtype}, and no floating-point numbers"
    if value.dim() < 2 or shape[0] != ITEMS:
        return f"{one.name} is {shape}, and its batch of {ITEMS} is not first"
    if one.name == "pooled" and value.dim() != 2:
        return f"pooled is {shape} and not (B, D)"
    return None


@check(
    "model",
    what="What a tap shows is not written over before the forward pass ends.",
    why="A strategy reads it afterwards: behind an in-place ReLU, what it takes for "
    "pre-activations has no negative numbers left, and matches something else.",
    fix="Use nn.ReLU() instead of nn.ReLU(inplace=True), and x = x + y instead of "
    "x += y, after what is tapped.",
)
def taps_kept(subject: OfferSubject) -> None:
    try:
        caught = _features(subject)
    except Broken:
        raise DoesNotApply("its taps are not there, see `taps`") from None
    changed = {
        one.name: int((one.value != one.was).sum())
        for one in caught
        if isinstance(one.value, Tensor)
        and one.was is not None
        and not torch.equal(one.value, one.was)
    }
    if changed:
        said = [f"{name} ({count} numbers)" for name, count in changed.items()]
        raise Broken(f"written over after they were tapped: {', '.join(said)}")


@check(
    "model",
    what="`classifier` is the linear layer that reads the tap `pooled`, and its "
    "outputs are the model's.",
    why="Strategies that use a classifier on other features (SimKD, SRRL, CAT-KD) take "
    "this layer, and CKA compares what it is handed.",
    fix='Give its path, such as classifier="head", and the tap "pooled": "head:input". '
    'A network without such a layer has classifier="" and no tap `pooled`.',
)
def classifier(subject: OfferSubject) -> None:
    found = networks(subject)
    model, network = found.model, found.fresh()
    if not model.classifier and "pooled" not in model.taps:
        raise DoesNotApply("it has no such layer")
    place = dict(network.named_modules()).get(model.classifier)
    if place is None or not model.classifier:
        raise Broken(f"there is no module {model.classifier!r}")
    read = model.taps.get("pooled")
    if read != f"{model.classifier}:input":
        raise Broken(f"it is {model.classifier!r}, and the tap pooled is {read!r}")
    if classifier_of(model, network) is None:
        raise Broken(f"{model.classifier!r} is a {type(place).__name__}, not nn.Linear")
    with tapped(network, {"": model.classifier}) as caught, torch.no_grad():
        answer = network(found.inputs)
    if not caught or not torch.equal(caught[-1].was, answer):  # type: ignore[arg-type]
        raise Broken(f"what leaves {model.classifier!r} is not what the model answers")
