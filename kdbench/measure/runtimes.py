"""A network made ready for each runtime and precision, and checked before it is timed.

eager: PyTorch as it is. compiled: torch.compile, for each shape of a batch anew. onnx:
ONNX Runtime on the CPU. cuda-graph: all of a pass's work recorded once, then replayed;
the inputs already lie where it reads them.

bfloat16 casts weights and inputs, once, as one would deploy it; autocast would cast the
weights again in every pass. int8 is dynamic quantisation of dense layers in PyTorch and
static quantisation of all that has a kernel in ONNX Runtime.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from kdbench.api import Dataset
from kdbench.forms import onnx, quantised
from kdbench.forms.onnx import OnnxNetwork, quantised_onnx, to_onnx
from kdbench.measure.size import is_float

RUNTIMES = ("eager", "compiled", "onnx", "cuda-graph")
PRECISIONS = ("float32", "bfloat16", "int8")

SAME = 1e-4
"""Largest difference of a float32 form, as a share of the largest output. Rounding in
another order comes to 1e-6 in the built-in models."""

LOSSY = 0.5
"""The same for fewer bits: they come to 0.002 to 0.1 in the built-in models. A form off
by half of its largest output computes something else. Arg-max is not looked at: in a
network fresh from its initialisation it is a matter of rounding."""

CHECKED = 32
"""Items that a form is checked on, and int8 is calibrated with."""

WARM_UP = 3
"""Passes before a CUDA graph is recorded, as torch asks for."""

Network = Callable[[Tensor], Tensor]
Pass = Callable[[], Tensor]
"""One forward pass of a batch that was made ready for it."""


class NotOffered(Exception):
    """Why there is no such form of this network here, in a sentence."""


@dataclass(frozen=True)
class Form:
    """A network in one runtime and precision, on this many threads.

    `at(batch)` makes a pass of that batch ready. `like` is another form whose best
    batch size is taken over, where each size would cost a compilation. `size_bytes` is
    that of its file, where it is one.
    """

    runtime: str
    precision: str
    threads: int
    at: Callable[[Tensor], Pass]
    like: Form | None = None
    size_bytes: int | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.precision}"


class Forms:
    """The forms of one network, as far as they were asked for.

    `sample` is a batch of inputs. The network itself is left as it is. All is to be
    called without grad.
    """

    def __init__(self, module: nn.Module, sample: Tensor, device: torch.device):
        self.device = device
        self.sample = sample.to(device)
        self._checked = self.sample[:CHECKED]
        self._module = copy.deepcopy(module).to(device).eval()
        self._networks: dict[str, nn.Module] = {}

    @cached_property
    def native(self) -> str:
        """The precision of the network as it is."""
        return native(self._module)

    def form(self, runtime: str, precision: str, threads: int) -> Form:
        """Raises NotOffered, or whatever the runtime does that cannot have it."""
        if runtime == "onnx":
            return self._onnx(precision, threads)
        network = self._network(precision)
        eager = Form("eager", precision, threads, runs(network, precision))
        if runtime == "eager":
            return eager
        if runtime == "compiled":
            at = _compiled(network, precision)
            return Form(runtime, precision, threads, at, like=eager)
        if self.device.type != "cuda":
            raise NotOffered(f"CUDA graphs need a CUDA device, not {self.device.type}")
        return Form(runtime, precision, threads, _captured(network, precision))

    def difference(self, form: Form, passes: Sequence[Pass]) -> float:
        """Largest absolute difference from eager, over the largest absolute output.

        Of the passes that are to be timed, as far as the sample's first items go, and
        of all these items in one batch. Raises NotOffered where the form is wrong.
        """
        with threads_set(form.threads):
            if form.like is None:
                passes = [*passes, form.at(self._checked)]
            return max(self._difference(form, act()) for act in passes)

    def _difference(self, form: Form, outputs: Tensor) -> float:
        found = outputs.detach()[:CHECKED].to("cpu", torch.float32)
        expected = self._expected[: len(found)]
        if found[: len(expected)].shape != expected.shape:
            shapes = f"{tuple(found.shape)}, not {tuple(expected.shape)}"
            raise NotOffered(f"its outputs are of shape {shapes}")
        largest = self._expected.abs().max().item() or 1.0
        off = (found[: len(expected)] - expected).abs().max().item() / largest
        most = SAME if form.precision == "float32" else LOSSY
        if not off <= most:  # NaN neither
            raise NotOffered(
                f"its outputs differ from eager {self.native} by {off:.2g} of the "
                f"largest, more than {most:g}"
            )
        return off

    @cached_property
    def _expected(self) -> Tensor:
        outputs: Tensor = self._module(self._checked)
        return outputs.detach().to("cpu", torch.float32)

    def _network(self, precision: str) -> nn.Module:
        if precision == self.native:
            return self._module
        if precision not in self._networks:
            self._networks[precision] = self._cast(precision)
        return self._networks[precision]

    def _cast(self, precision: str) -> nn.Module:
        if not is_float(self._module):
            raise NotOffered("the network does not compute with float32 numbers")
        if precision == "bfloat16":
            return copy.deepcopy(self._module).to(torch.bfloat16)
        try:
            return quantised.int8_dynamic(self._module)
        except ValueError as error:
            raise NotOffered(str(error)) from error

    def _onnx(self, precision: str, threads: int) -> Form:
        if (words := onnx.missing()) is not None:
            raise NotOffered(words)
        if self.device.type != "cpu":
            raise NotOffered("ONNX Runtime is timed on the CPU (--device cpu)")
        file = self._file(precision)
        network = OnnxNetwork(file, threads)
        return Form("onnx", precision, threads, runs(network), size_bytes=len(file))

    def _file(self, precision: str) -> bytes:
        if precision == "int8" and self.native == "float32":
            return self._int8_file
        if precision == "bfloat16":
            network = self._network(precision)
            return to_onnx(network, self._checked.to(torch.bfloat16))
        if precision != self.native:
            raise NotOffered("the network does not compute with float32 numbers")
        return self._native_file

    @cached_property
    def _native_file(self) -> bytes:
        return to_onnx(self._module, self._checked)

    @cached_property
    def _int8_file(self) -> bytes:
        return quantised_onnx(self._native_file, self._checked)


def native(module: nn.Module) -> str:
    """The precision of a network as it is: int8 if it is quantised already."""
    kinds = {value.dtype for value in module.state_dict().values()}
    if torch.int8 in kinds:
        return "int8"
    floats = [kind for kind in kinds if kind.is_floating_point]
    return str(floats[0]).removeprefix("torch.") if len(floats) == 1 else "float32"


def noise(dataset: Dataset, items: int) -> Tensor:
    """Inputs unlike each other, always the same: normal noise, or random tokens."""
    own = torch.Generator().manual_seed(0)
    shape = (items, *dataset.input_shape)
    if dataset.vocabulary:
        return torch.randint(1, dataset.vocabulary, shape, generator=own)
    return torch.randn(shape, generator=own)


@contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Set torch's number of threads, and put back what it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def runs(network: Network, precision: str = "float32") -> Callable[[Tensor], Pass]:
    """Passes of a network as it is, of batches that it can read."""

    def at(batch: Tensor) -> Pass:
        ready = as_read(batch, precision)
        return lambda: network(ready)

    return at


def as_read(batch: Tensor, precision: str) -> Tensor:
    """The batch as a network of this precision reads it; tokens stay tokens."""
    if precision == "bfloat16" and batch.is_floating_point():
        return batch.to(torch.bfloat16)
    return batch


def _compiled(network: nn.Module, precision: str) -> Callable[[Tensor], Pass]:
    """Compiled for the batch's shape and the number of threads set now."""

    def at(batch: Tensor) -> Pass:
        ready = as_read(batch, precision)
        # code of its own: torch keeps eight variants of one code, then runs it eagerly
        run = _own_code(network)
        fast = torch.compile(run, dynamic=False)
        with onnx.quiet():
            fast(ready)
        return lambda: fast(ready)

    return at


_numbers = itertools.count()


def _own_code(network: nn.Module) -> Network:
    def run(inputs: Tensor) -> Tensor:
        outputs: Tensor = network(inputs)
        return outputs

    run.__code__ = run.__code__.replace(co_name=f"run_{next(_numbers)}")
    return run


def _captured(network: nn.Module, precision: str) -> Callable[[Tensor], Pass]:
    def at(batch: Tensor) -> Pass:
        ready = as_read(batch, precision)
        stream = torch.cuda.Stream(ready.device)  # type: ignore[no-untyped-call]
        main = torch.cuda.current_stream(ready.device)
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                network(ready)
        main.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            outputs: Tensor = network(ready)

        def replay() -> Tensor:
            graph.replay()
            return outputs

        return replay

    return at
