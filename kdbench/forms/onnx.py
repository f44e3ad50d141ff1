"""A network as an ONNX file, in float32 or int8, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import UserError

NEEDED = ("onnx", "onnxscript", "onnxruntime")

BATCH = 32
"""Items at a time in the calibration of int8."""


def missing() -> str | None:
    """Why networks cannot be exported and run here, or None where they can."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not lacking:
        return None
    return f"{', '.join(lacking)} not installed: pip install 'kdbench[onnx]'"


def to_onnx(
    module: nn.Module,
    example: Tensor,
    *,
    input_name: str = "inputs",
    output_name: str = "logits",
) -> bytes:
    """The network in eval mode as an ONNX file of one input and one output.

    `example` is a batch of inputs, float or int64 tokens, (B, ...); the file takes
    batches of any size. The module itself is left as it is. Raises UserError where a
    package is missing, or torch cannot export the network.
    """
    _require()
    network = copy.deepcopy(module).cpu().eval()
    batch = example.detach().cpu()
    if len(batch) < 2:  # torch.export takes a batch of one for a constant
        batch = batch[:1].repeat(2, *[1] * (batch.dim() - 1))
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (batch,),
                dynamo=True,
                verbose=False,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            assert program is not None  # noqa: S101 - it is, without a file to write
            return bytes(program.model_proto.SerializeToString())
    except Exception as error:
        raise UserError(
            f"torch.onnx cannot export this {type(module).__name__}: {cause(error)}; "
            "what it runs must be tensor operations that torch.export can trace for a "
            "batch of any size"
        ) from error


def quantised_onnx(model: bytes, sample: Tensor) -> bytes:
    """An ONNX file in int8: weights per channel, activations by their range.

    Static quantisation of ONNX Runtime in its QDQ form, both signed, which it
    recommends first; the ranges are the smallest and largest values that `sample`, a
    batch of inputs, leads to. Batch norms are folded into convolutions before. What has
    no int8 kernel stays in float32. Raises UserError where a package is missing.
    """
    _require()
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = _input_name(model)
    parts = torch.split(sample.detach().cpu(), BATCH)
    batches = iter([{name: part.numpy()} for part in parts])

    class Sample(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as where, quiet():
        plain, folded, small = (Path(where, f"{n}.onnx") for n in ("f", "p", "q"))
        plain.write_bytes(model)
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            small,
            Sample(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


class OnnxNetwork:
    """An ONNX file as a function of a batch, on this many threads of the CPU.

    Takes (B, ...) inputs on the CPU and returns the first output. Raises UserError
    where a package is missing.
    """

    def __init__(self, model: bytes, threads: int):
        _require()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.name = self.session.get_inputs()[0].name

    def __call__(self, inputs: Tensor) -> Tensor:
        found = self.session.run(None, {self.name: inputs.detach().numpy()})
        return torch.from_numpy(found[0])


def cause(error: BaseException) -> str:
    """The first line of the innermost error, which torch's exporters wrap in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else repr(error)


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that exporters print, warn of or log; what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    printed = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(printed),
            redirect_stderr(printed),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _input_name(model: bytes) -> str:
    import onnx

    return str(onnx.load_from_string(model).graph.input[0].name)


def _require() -> None:
    if (words := missing()) is not None:
        raise UserError(words)
