"""A deployed network as one file, and that file run by its own runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdbench.api import UserError
from kdbench.forms.onnx import OnnxNetwork, cause, missing, quiet, to_onnx

HEADER = "kdbench.json"
"""The name of the description inside a file of torch.export."""

Ask = Callable[[Tensor], Tensor]
"""(B, ...) items as they are stored -> (B, outputs)."""


class Deployed(nn.Module):
    """A network with what comes before and after it: items as stored -> its answers.

    `mean` and `std` are one per channel, and normalise items that are numbers; tokens
    have none. `middle` and `spread`, one per output, bring what was standardised back
    into its own unit; logits have none.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        middle: Tensor | None = None,
        spread: Tensor | None = None,
    ):
        super().__init__()
        self.network = network
        self.mean: Tensor | None
        self.scale: Tensor | None
        self.middle: Tensor | None
        self.spread: Tensor | None
        self.register_buffer("mean", mean)
        # the engine multiplies, too: the same bits
        self.register_buffer("scale", None if std is None else 1 / std)
        self.register_buffer("middle", middle)
        self.register_buffer("spread", spread)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.mean is not None and self.scale is not None:
            shape = (1, -1) + (1,) * (inputs.dim() - 2)
            inputs = (inputs.float() - self.mean.view(shape)) * self.scale.view(shape)
        outputs: Tensor = self.network(inputs).float()
        if self.middle is not None and self.spread is not None:
            return outputs * self.spread + self.middle
        return outputs


@dataclass(frozen=True, kw_only=True)
class Form:
    """A format: `write(whole, example, path, about)` and `read(path, fresh)`.

    `example` is a batch of stored items, `about` goes into the file's own header.
    `fresh()` builds a network without weights, which only a file of bare weights needs
    (`bare`). Both run on the CPU. `runtime()` is what reads the file, with its version;
    `missing()` why it cannot be used here, or None.
    """

    file: str
    write: Callable[[Deployed, Tensor, Path, Mapping[str, str]], None]
    read: Callable[[Path, Callable[[], Deployed]], Ask]
    runtime: Callable[[], str]
    bare: bool = False
    missing: Callable[[], str | None] = lambda: None


def _write_onnx(
    whole: Deployed, example: Tensor, path: Path, about: Mapping[str, str]
) -> None:
    import onnx

    model = onnx.load_from_string(to_onnx(whole, example, output_name="outputs"))
    onnx.helper.set_model_props(model, dict(about))
    for node in model.graph.node:  # where each came from in whose source files
        node.ClearField("metadata_props")
    path.write_bytes(model.SerializeToString())


def _read_onnx(path: Path, _fresh: Callable[[], Deployed]) -> Ask:
    return OnnxNetwork(path.read_bytes(), torch.get_num_threads())


def _onnx_runtime() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def _write_program(
    whole: Deployed, example: Tensor, path: Path, about: Mapping[str, str]
) -> None:
    import json

    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                copy.deepcopy(whole).eval(),
                (example,),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            for node in program.graph.nodes:  # likewise
                node.meta.pop("stack_trace", None)
            text = {HEADER: json.dumps(about)}
            torch.export.save(program, path, extra_files=text)
    except Exception as error:
        raise UserError(
            f"torch.export cannot trace this {type(whole.network).__name__}: "
            f"{cause(error)}"
        ) from error


def _read_program(path: Path, _fresh: Callable[[], Deployed]) -> Ask:
    with quiet():
        module = torch.export.load(path).module()
    return _answering(module)


def _write_weights(
    whole: Deployed,
    example: Tensor,  # noqa: ARG001 - bare weights have no inputs
    path: Path,
    about: Mapping[str, str],
) -> None:
    state = whole.network.state_dict()
    plain = {
        k: v.clone(memory_format=torch.contiguous_format) for k, v in state.items()
    }
    path.write_bytes(save(plain, dict(about)))


def _read_weights(path: Path, fresh: Callable[[], Deployed]) -> Ask:
    whole = fresh()
    try:
        whole.network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise UserError(
            "bare weights are those of a network that a model builds, and its strategy "
            "deploys another one"
        ) from error
    return _answering(whole.eval())


def _answering(module: nn.Module) -> Ask:
    def ask(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(inputs)
        return found

    return ask


FORMS = {
    "onnx": Form(
        file="student.onnx",
        write=_write_onnx,
        read=_read_onnx,
        runtime=_onnx_runtime,
        missing=missing,
    ),
    "torch-export": Form(
        file="student.pt2",
        write=_write_program,
        read=_read_program,
        runtime=lambda: f"torch.export of torch {torch.__version__}",
    ),
    "safetensors": Form(
        file="student.safetensors",
        write=_write_weights,
        read=_read_weights,
        runtime=lambda: f"A fresh network in torch {torch.__version__}",
        bare=True,
    ),
}
