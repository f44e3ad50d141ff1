"""What a model's weights are known by (protocol rule 6), and the file that says so.

The file is safetensors: tensors alone, nothing that could run. Its header holds a card,
which says what the weights are.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from kdbench.api import UserError
from kdbench.records import Headline, Record, Strict

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]
"""Parameters and buffers by name, on the CPU."""

Environment = Mapping[str, str | int | float | None]

HEADER = "kdbench"
"""The key of the card in the file's header."""

POINTS = 0.1
SHARE = 0.01
"""How far the headline of unchanged weights may lie elsewhere: top-1 points, and a
share of any other headline. Other machines add numbers up in another order."""

SAME = ("cpu", "device", "threads", "torch")


class Trained(Strict):
    """The card of a teacher that kdbench trained; `data` is the hash of its data."""

    format: Literal[1] = 1
    kind: Literal["trained"] = "trained"
    record: Record
    data: str = ""

    @property
    def weights_sha256(self) -> str:
        return self.record.weights_sha256 or ""


class Imported(Strict):
    """The card of a state dict from elsewhere, measured when it was imported.

    `value` is the dataset's headline; `file` and `file_sha256` name the origin, `key`
    and `map` say how it was read.
    """

    format: Literal[1] = 1
    kind: Literal["imported"] = "imported"
    name: str
    model: str
    dataset: str
    input_shape: tuple[int, ...]
    outputs: int
    headline: Headline
    value: float
    test_items: int
    weights_sha256: str
    file: str
    file_sha256: str
    key: str = ""
    map: str = ""
    environment: dict[str, str | int | float | None]
    imported_at: str


Card = Trained | Imported


def state_hash(state: State) -> str:
    """sha256 over names and bytes of all tensors: that of the module they are from."""
    import torch

    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(name.encode())
        flat = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        total.update(flat.numpy().tobytes())
    return total.hexdigest()


def drift(
    headline: Headline,
    known: float | None,
    value: float,
    items: int | None,
    then: Environment,
    now: Environment,
) -> str | None:
    """Why a headline measured again is not the known one; None where it agrees.

    On one machine's CPU it must be the same. Elsewhere, and on a GPU, whose kernels are
    chosen anew by each process, it may differ by 0.1 points of top-1 or by one test
    item, and by 1% of any other headline.
    """
    if known is None:
        return None
    if now["device"] == "cpu" and all(then.get(k) == now[k] for k in SAME):
        allowed = 1e-6 * abs(known)
    elif headline.better == "higher":
        allowed = max(POINTS, 100 / items if items else 0.0)
    else:
        allowed = SHARE * abs(known)
    if abs(value - known) <= allowed * (1 + 1e-6):
        return None
    return (
        f"measures {headline.title} {shown(headline, value)} here, and "
        f"{shown(headline, known)} when it was recorded: the data, their preprocessing "
        "or the model's code must be other ones"
    )


def shown(headline: Headline, value: float | None) -> str:
    """The headline's value with its unit."""
    if value is None:
        return "-"
    if headline.unit == "%":
        return f"{value:.2f}%"
    return f"{value:.4g} {headline.unit}".strip()


def write(path: Path, state: State, card: Card | None = None) -> None:
    """Write the weights, whole or not at all, also where others write them too."""
    from safetensors.torch import save

    header = None if card is None else {HEADER: card.model_dump_json()}
    whole = {name: value.contiguous() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with fresh.open("wb") as file:
            file.write(save(whole, header))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def is_safetensors(path: Path) -> bool:
    """By its first bytes: the length of a JSON header, and that header.

    Raises UserError where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise UserError(f"no file {path}; check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000


def read_card(path: Path) -> Card:
    """The card alone; the tensors are not read. UserError where there is none."""
    from safetensors import SafetensorError, safe_open

    if not is_safetensors(path):
        raise UserError(
            f"{path} is not a safetensors file; to use a checkpoint of torch say what "
            "it is with --model, --dataset and --name"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(HEADER)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if text is None:
        raise UserError(
            f"{path} holds weights but no record of kdbench; to use a checkpoint from "
            "elsewhere say what it is with --model, --dataset and --name"
        )
    kinds = Annotated[Card, Field(discriminator="kind")]
    try:
        card: Card = TypeAdapter(kinds).validate_json(text)
        return card
    except ValidationError as error:
        raise UserError(
            f"{path}: its record is not one of this version of kdbench "
            f"({error.errors()[0]['msg']}); its weights can still be used as a "
            "checkpoint from elsewhere, with --model, --dataset and --name"
        ) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. UserError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return state


def read(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Card and weights, which have the hash that the card names; else UserError."""
    card = read_card(path)
    state = read_state(path)
    found = state_hash(state)
    if found != card.weights_sha256:
        raise UserError(
            f"{path} is damaged: its weights have sha256 {found[:12]}, and its record "
            f"names {card.weights_sha256[:12]}"
        )
    return card, state
