"""A state dict from elsewhere: read without running it, renamed, and made to match.

Nothing in such a file is ever run (`weights_only=True`), and its keys reach the model's
by an explicit map, every one of them.
"""

from __future__ import annotations

import difflib
import pickle
import re
import tomllib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from kdbench.api import Dataset, Model, UserError, unknown
from kdbench.records import Strict
from kdbench.weights import is_safetensors, read_state

LISTED = 8
"""Keys of each kind that an error names."""


def read_foreign(file: Path, key: str | None) -> dict[str, Tensor]:
    """The state dict of a safetensors file or a torch checkpoint, nested under `key`.

    Raises UserError for a file that holds more than tensors and plain values: to load
    such a file is to run the code of whoever wrote it.
    """
    if is_safetensors(file):
        if key is not None:
            raise UserError(f"--key {key}: {file} is safetensors, which has no levels")
        return read_state(file)
    content = _unpickled(file)
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            there = content if isinstance(content, Mapping) else ()
            raise unknown("--key", key, map(str, there), str(file))
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{file} holds {type(content).__name__}, not a state dict")
    odd = [k for k, value in content.items() if not isinstance(value, Tensor)]
    if not odd:
        return {str(name): value.detach() for name, value in content.items()}
    inside = "; ".join(f"{k!r}: {_words(v)}" for k, v in list(content.items())[:LISTED])
    nested = [k for k in odd if isinstance(content[k], Mapping)]
    hint = "save the model's state_dict() alone"
    if nested:
        hint = f"name the state dict with --key, such as --key {nested[0]}"
    raise UserError(f"{file} is not a state dict itself; it holds {inside}\n  {hint}")


def _unpickled(file: Path) -> Any:
    with file.open("rb") as content:
        if content.read(1) not in (b"\x80", b"P"):  # a pickle, or a zip file of torch's
            raise UserError(f"{file} is neither safetensors nor a checkpoint of torch")
    try:
        with warnings.catch_warnings():  # on old pickles, which are refused or read
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found.group(1)})" if found else ""
        raise UserError(
            f"{file} is refused: it holds more than tensors and plain values{what}, "
            "and loading such a file can run any code its author put there.\n"
            "  If you trust it, load it yourself and save its weights alone: "
            "torch.save(checkpoint['model'], FILE)"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{file} cannot be read as a checkpoint: {why}") from None


def _words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{len(value)} entries"
    return type(value).__name__


# --- the map --------------------------------------------------------------------------


class Replacement(Strict):
    """A regular expression, and what its matches in every key become."""

    from_: str = Field(alias="from", min_length=1)
    to: str


class KeyMap(Strict):
    """Foreign keys to ours: dropped, renamed exactly, or else replaced by pattern."""

    drop: tuple[str, ...] = ()
    rename: dict[str, str] = Field(default_factory=dict)
    replace: tuple[Replacement, ...] = ()


def read_map(path: Path) -> KeyMap:
    """Parse and check a map file. UserError names the file and the key."""
    where = f"map {path}"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not valid TOML: {error}") from error
    try:
        return KeyMap.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        hint = 'write [rename] "old.name" = "new.name", with quotes'
        if first["loc"][0] != "rename":
            hint = 'it holds drop = [...], [rename], and [[replace]] from = "" to = ""'
        raise UserError(f"{where}: {place}: {first['msg']}; {hint}") from None


def renamed(
    state: Mapping[str, Tensor], key_map: KeyMap, where: str
) -> dict[str, Tensor]:
    """The state under its new names. UserError for an entry of the map without effect.

    Exact names come first; patterns are applied, in order, to the keys left.
    """
    for name in (*key_map.drop, *key_map.rename):
        if name not in state:
            raise unknown("key", name, state, where)
    found: dict[str, Tensor] = {}
    used = dict.fromkeys(range(len(key_map.replace)), 0)
    for old, value in state.items():
        if old in key_map.drop:
            continue
        new = key_map.rename.get(old)
        if new is None:
            new = old
            for k, rule in enumerate(key_map.replace):
                new, count = _replaced(rule, new, where)
                used[k] += count
        if new in found:
            raise UserError(f"{where}: two keys become {new!r}, {old!r} is one of them")
        found[new] = value
    for k, count in used.items():
        if not count:
            raise UserError(f"{where}: {key_map.replace[k].from_!r} matches no key")
    return found


def _replaced(rule: Replacement, name: str, where: str) -> tuple[str, int]:
    try:
        return re.subn(rule.from_, rule.to, name)
    except (re.error, IndexError) as error:
        raise UserError(
            f"{where}: from = {rule.from_!r}, to = {rule.to!r}: {error}"
        ) from None


# --- every key must match -------------------------------------------------------------


def matched(
    state: Mapping[str, Tensor],
    module: nn.Module,
    spec: Model,
    dataset: Dataset,
    origin: str,
) -> dict[str, Tensor]:
    """The state in the module's number formats.

    Raises UserError that lists what is missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = {
        name: (tuple(state[name].shape), tuple(wanted[name].shape))
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    }
    head = [f"{spec.classifier}.{part}" for part in ("weight", "bias")]
    if shapes and not missing and not unexpected and set(shapes) <= set(head):
        outputs = next(iter(shapes.values()))[0][0]
        raise UserError(
            f"{origin} has {outputs} outputs, and {dataset.name} has "
            f"{dataset.task.sentence()}: it was trained on other data"
        )
    problems = [
        *_listed("missing", missing, unexpected),
        *_listed("unexpected", unexpected, missing),
    ]
    if shapes:
        parts = [f"{k!r} is {a}, not {b}" for k, (a, b) in shapes.items()]
        problems.append(f"of another shape ({len(parts)}): {_some(parts)}")
    if problems:
        raise UserError(
            "\n  ".join([_compared(state, wanted, spec, origin), *problems])
        )
    for name, value in state.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            raise UserError(
                f"{origin}: {name!r} is {value.dtype}, not {wanted[name].dtype}"
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{origin}: {name!r} holds NaN or infinity")
    return {k: state[k].to(v.dtype).contiguous() for k, v in wanted.items()}


def _compared(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    spec: Model,
    origin: str,
) -> str:
    """The first line: how large both are, and how to go on."""
    ours, theirs = (sum(v.numel() for v in s.values()) for s in (wanted, state))
    if ours == theirs:
        hint = "the sizes are equal: say with --map FILE which key is which"
    else:
        hint = "the sizes differ: is it another model?"
    if all(name.startswith("module.") for name in state):
        hint = r"a prefix goes by [[replace]] from = '^module\.' to = '' in --map FILE"
    return (
        f"{origin} ({theirs:,} numbers) does not fit model {spec.name} ({ours:,}); "
        f"{hint}"
    )


def _listed(title: str, names: Sequence[str], others: Iterable[str]) -> list[str]:
    """A line that names these keys, each with the nearest of the others."""
    if not names:
        return []
    options = list(others)
    parts = []
    for name in names[:LISTED]:
        near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
        parts.append(f"{name!r}" + (f" (near {near[0]!r})" if near else ""))
    parts += names[LISTED:]  # only counted
    return [f"{title} ({len(names)}): {_some(parts)}"]


def _some(parts: Sequence[str]) -> str:
    more = len(parts) - LISTED
    return ", ".join(parts[:LISTED]) + (f" and {more} more" if more > 0 else "")
