"""Size of a student: parameters, multiply-accumulates, bytes on disk."""

from __future__ import annotations

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench.api import Dataset, Measure, Model

TINY_MACS = 20e6
"""Groups whose largest model is below this run on one thread, several at a time: more
threads would only wait for each other. A fixed rule, since threads change bits."""


def parameters(model: nn.Module) -> int | None:
    """Number of trainable numbers (buffers not counted).

    A module that keeps them elsewhere says how many in `parameter_count`, or None.
    """
    known: int | None = getattr(model, "parameter_count", 0)
    return known if known != 0 else sum(p.numel() for p in model.parameters())


def is_as_built(spec: Model, dataset: Dataset, found: float | None) -> bool:
    """Whether a student of `found` parameters is what its model builds.

    It is timed later then, on its own. A fitted one depends on what it learned, and a
    level 4 strategy may return another network: they are timed when they finish, while
    other runs may be training.
    """
    if spec.learner == "fitted":
        return False
    fresh = dataset.build(spec).eval()
    if spec.deploy is not None:
        fresh = spec.deploy(fresh)
    return parameters(fresh) == found


def macs(model: nn.Module, one: Tensor) -> float | None:
    """Multiply-accumulates of one forward pass of `one`, a batch of one item.

    Convolutions and matrix products, as torch's FLOP counter counts them;
    FLOPs = 2 x MACs. A module whose arithmetic it cannot see gives its `mac_count`, or
    says in `macs_unknown` why there is none: then this is None.
    """
    if hasattr(model, "macs_unknown"):
        return None
    if hasattr(model, "mac_count"):
        with torch.no_grad():
            model(one)  # it may only know them by its inputs
        return float(model.mac_count)  # type: ignore[arg-type]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(one)
    return float(counter.get_total_flops() / 2)


def macs_of(spec: Model, dataset: Dataset) -> float:
    """MACs of a model for one of the dataset's items, 0 where they are unknown.

    Nothing is computed; raises whatever a model does that cannot take the items.
    """
    with torch.device("meta"):
        return macs(dataset.build(spec).eval(), dataset.example(1)) or 0.0


def size_of(spec: Model, dataset: Dataset) -> tuple[int | None, float | None]:
    """Parameters and MACs of a model for this dataset's items, without any memory.

    (None, None) where it cannot take them; None for what only training tells.
    """
    try:
        with torch.device("meta"):
            model = dataset.build(spec).eval()
            return parameters(model), macs(model, dataset.example(1))
    except Exception:  # noqa: BLE001 - a model may refuse inputs in any way
        return None, None


def serialised(model: nn.Module) -> bytes:
    """The model's parameters and buffers as a safetensors file."""
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    return to_safetensors(state)


SIZE = [
    Measure(
        name="parameters",
        summary="trainable parameters of the deployed student",
        unit="count",
        better="lower",
        compute=lambda finished: parameters(finished.model),
    ),
    Measure(
        name="macs",
        summary="multiply-accumulates of one item; FLOPs = 2 x MACs",
        unit="count",
        better="lower",
        compute=lambda finished: macs(finished.model, finished.sample[:1]),
    ),
    Measure(
        name="size_bytes",
        summary="the weights file (safetensors, fp32)",
        unit="bytes",
        better="lower",
        compute=lambda finished: len(serialised(finished.model)),
    ),
]
