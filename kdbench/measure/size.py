"""Size of a student: parameters, multiply-accumulates, bytes on disk, activations.

Numbers of parameters, MACs and the weights file are every run's own. What else follows
from the architecture alone is measured once for each, beside its speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.backends import mha
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from kdbench.api import Dataset, Measure, Model
from kdbench.engine.live_bytes import LiveBytes
from kdbench.forms import quantised
from kdbench.models.shapes import ShapesOnly

TINY_MACS = 20e6
"""Groups whose largest model is below this run on one thread, several at a time: more
threads would only wait for each other. A fixed rule, since threads change bits."""


def parameters(model: nn.Module) -> int | None:
    """Number of trainable numbers (buffers not counted).

    A module that keeps them elsewhere says how many in `parameter_count`, or None.
    """
    known: int | None = getattr(model, "parameter_count", 0)
    return known if known != 0 else sum(p.numel() for p in model.parameters())


def parameters_total(model: nn.Module) -> int | None:
    """Every number of the deployed file: parameters, running statistics, scales.

    Not batch norm's counts of batches, which nothing reads after training. Of a module
    that keeps what it learned as bytes in its extra state: what `parameters` says.
    """
    state: dict[str, Tensor] = model.state_dict()
    if any(name.endswith("_extra_state") for name in state):
        return parameters(model)
    return sum(v.numel() for name, v in state.items() if not _is_counter(name))


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


def is_as_built(spec: Model, dataset: Dataset, found: float | None) -> bool:
    """Whether a student of `found` parameters is what its model builds.

    It is timed later then, on its own. A fitted one depends on what it learned, and a
    level 4 strategy may return another network: they are timed when they finish, while
    other runs may be training.
    """
    if spec.learner == "fitted":
        return False
    return parameters(dataset.deployed(spec)) == found


def macs(model: nn.Module, one: Tensor) -> float | None:
    """Multiply-accumulates of one forward pass of `one`, a batch of one item.

    Convolutions, matrix products, attention and recurrent layers, as torch's FLOP
    counter counts them on any device; FLOPs = 2 x MACs. A causal mask saves nothing. A
    module whose arithmetic it cannot see gives its `mac_count`, or says in
    `macs_unknown` why there is none: then this is None.
    """
    if hasattr(model, "macs_unknown"):
        return None
    if hasattr(model, "mac_count"):
        with torch.no_grad():
            model(one)  # it may only know them by its inputs
        return float(model.mac_count)  # type: ignore[arg-type]
    counting = FlopCounterMode(display=False, custom_mapping=UNSEEN)
    with torch.no_grad(), _attention_in_parts(), ShapesOnly(), counting as counter:
        model(one)
    return float(counter.get_total_flops() / 2)


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Attention without torch's kernel that hides its products from the counter."""
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


Sizes = tuple[int, ...]


def _attention_on_cpu(
    query: Sizes, key: Sizes, value: Sizes, *_rest: object, **_more: object
) -> int:
    """FLOPs of both its products: (B, heads, length, width) each."""
    both: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return both


def _in_integers(left: Sizes, right: Sizes, *_rest: object, **_more: object) -> int:
    """Operations of a product of int8 matrices, (M, K) and (K, N)."""
    return 2 * prod(left) * right[1]


def _recurrent_on_cpu(
    inputs: Sizes, of_input: Sizes, of_state: Sizes, *_rest: object, **_more: object
) -> int:
    """FLOPs of one layer and direction: inputs (T, B, I), weights (G x H, I or H)."""
    return 2 * prod(inputs[:2]) * (prod(of_input) + prod(of_state))


def _recurrent_on_cuda(
    inputs: Sizes, weights: list[Sizes], *_rest: object, **_more: object
) -> int:
    """FLOPs of all layers: inputs (T, B, I) or packed (N, I), weights and biases."""
    return 2 * prod(inputs[:-1]) * sum(prod(w) for w in weights if len(w) == 2)


aten = torch.ops.aten
UNSEEN = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_on_cpu,
    aten._int_mm: _in_integers,
    aten.mkldnn_rnn_layer: _recurrent_on_cpu,
    aten._cudnn_rnn: _recurrent_on_cuda,
}
"""FLOPs of what the counter of torch 2.6 to 2.13 takes for nothing."""


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


def serialised(model: nn.Module, dtype: torch.dtype | None = None) -> bytes:
    """The model's parameters and buffers as a safetensors file.

    With a `dtype`, floating-point numbers are kept as such.
    """
    state = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None)
        for name, value in model.state_dict().items()
    }
    return to_safetensors({name: v.contiguous() for name, v in state.items()})


def is_float(model: nn.Module) -> bool:
    """Whether it computes with float32 numbers, so that fewer bits are another form.

    Not an estimator, or a network that is quantised already.
    """
    kinds = {value.dtype for value in model.state_dict().values()}
    floats = {dtype for dtype in kinds if dtype.is_floating_point}
    return floats == {torch.float32} and not kinds & {torch.int8, torch.uint8}


def bf16_bytes(model: nn.Module) -> int | None:
    """Bytes of the weights file in bfloat16; None for what is no float32 network."""
    return len(serialised(model, torch.bfloat16)) if is_float(model) else None


def int8_bytes(model: nn.Module) -> tuple[int | None, str]:
    """Bytes of the weights file with int8 weights, as `quantised.int8_weights` has it.

    None where there is no such file, and why: torchao is missing, the network has no
    layer to quantise, or is no float32 network.
    """
    if not is_float(model):
        return None, "it is no network of float32 numbers"
    missing = quantised.missing()
    if missing:
        return None, missing
    try:
        return len(serialised(quantised.int8_weights(model))), ""
    except ValueError as error:
        return None, str(error)


def activation_bytes(model: nn.Module, one: Tensor) -> int:
    """Most bytes of tensors alive at once while `model` computes `one`, without grad.

    `one` is a batch of one item, on any device, meta too, and counts all the while.
    Weights, buffers and what the module kept from an earlier pass (one is done first)
    do not, nor does what a kernel needs for itself. A view, or a result in place, adds
    nothing. torch's own tracker (torch.distributed._tools.MemTracker) needs a torch
    with distributed, and rounds up to what CUDA's allocator hands out.
    """
    with torch.no_grad():
        model(one)
        with LiveBytes() as live:
            model(one)
    peak: int = live.peak
    return one.nbytes + peak


SIZE = [
    Measure(
        name="parameters",
        summary="trainable parameters of the deployed student",
        unit="count",
        better="lower",
        compute=lambda finished: parameters(finished.model),
    ),
    Measure(
        name="parameters_total",
        summary="numbers in the weights file: parameters, running statistics, scales",
        unit="count",
        better="lower",
        compute=lambda finished: parameters_total(finished.model),
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
        summary="the weights file as deployed (safetensors, fp32 if not quantised)",
        unit="bytes",
        better="lower",
        compute=lambda finished: len(serialised(finished.model)),
    ),
    Measure(
        name="size_bf16_bytes",
        summary="the weights file in bfloat16",
        unit="bytes",
        better="lower",
        scope="model",
        compute=lambda finished: bf16_bytes(finished.model),
    ),
    Measure(
        name="size_int8_bytes",
        summary="the weights file with int8 weights (extra: quant)",
        unit="bytes",
        better="lower",
        scope="model",
        compute=lambda finished: int8_bytes(finished.model)[0],
    ),
    Measure(
        name="activation_bytes",
        summary="most bytes of tensors alive at once in a forward pass of one item",
        unit="bytes",
        better="lower",
        scope="model",
        compute=lambda finished: activation_bytes(finished.model, finished.sample[:1]),
    ),
]
