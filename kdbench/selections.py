"""Strategies as they are written: `kd[temperature=2,4]`, `dkd@authors`, `kd+fitnet`.

`kd/int8_dynamic` is what a compression makes of the student that `kd` left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product
from typing import Any

from kdbench.api import UserError


@dataclass(frozen=True)
class Selection:
    """One strategy by name with hyper-parameters given: `kd[temperature=2]`.

    Or a sum, `kd+fitnet[weight=2]`, whose parameters are called `fitnet.weight`.
    `presets` maps a part to its preset (`dkd@authors`); `compressions` are done to the
    finished student, one after the other.
    """

    name: str
    params: Mapping[str, Any]
    presets: Mapping[str, str] = field(default_factory=dict)
    compressions: tuple[str, ...] = ()


def parse_selection(text: str) -> list[Selection]:
    """`kd[temperature=2,4,ce_weight=0.5]` -> one selection per combination of values.

    A comma separates values; a part with "=" begins the next hyper-parameter; a list
    is written as JSON does: `levels=[1,2]`. `kd+fitnet` is a sum of strategies,
    `dkd@authors` one with a preset, `kd/half` one whose student is compressed.
    """
    strategy, *after = (part.strip() for part in _split(text, "/"))
    if not all(re.fullmatch(r"[^\s\[\],@+]+", name) for name in after):
        raise UserError(
            f"strategy {text!r} is not understood; write STRATEGY/COMPRESSION, "
            "such as kd/int8_dynamic"
        )
    parts = [_parse_part(part, text) for part in _split(strategy, "+")]
    if len(parts) == 1:
        return [replace(one, compressions=tuple(after)) for one in parts[0]]
    return [
        Selection(
            "+".join(part.name for part in chosen),
            {f"{p.name}.{k}": v for p in chosen for k, v in p.params.items()},
            {name: preset for p in chosen for name, preset in p.presets.items()},
            tuple(after),
        )
        for chosen in product(*parts)
    ]


def _parse_part(text: str, whole: str) -> list[Selection]:
    form = r"\s*([^\s\[\],@]+)(?:@([\w-]+))?\s*(?:\[(.*)\])?\s*"
    match = re.fullmatch(form, text)
    if not match or not _closed(match[3] or ""):
        raise UserError(
            f"strategy {whole!r} is not understood; write NAME, NAME[key=value,value], "
            "NAME@PRESET or a sum of these, NAME+NAME"
        )
    name, preset, inside = match.groups()
    presets = {name: preset} if preset else {}
    choices: dict[str, list[Any]] = {}
    for part in split_selections([inside or ""]):
        key, equals, value = part.rpartition("=")
        if equals:
            last = key.strip()
            if not last or last in choices:
                raise UserError(f"strategy {text!r}: {last!r} is empty or given twice")
            choices[last] = []
        elif not choices:
            raise UserError(f"strategy {text!r}: {part!r} lacks 'key='")
        choices[last].append(_value(value.strip()))
    return [
        Selection(name, dict(zip(choices, values, strict=True)), presets)
        for values in product(*choices.values())
    ]


def _value(text: str) -> Any:
    """A number, true/false or null as JSON writes them; anything else is a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def split_selections(texts: Iterable[str]) -> list[str]:
    """Split "a,b[x=1,2]" at the commas outside brackets."""
    found: list[str] = []
    for text in texts:
        found += [part.strip() for part in _split(text, ",")]
    return [part for part in found if part]


def _closed(text: str) -> bool:
    """Whether every bracket is opened and closed, in this order."""
    depths = list(accumulate((c == "[") - (c == "]") for c in text))
    return min(depths, default=0) >= 0 and sum(depths[-1:]) == 0


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text between the separators outside brackets."""
    depth = 0
    parts = [""]
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == separator and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def label_of(
    name: str,
    params: Mapping[str, Any],
    defaults: Mapping[str, Any],
    presets: Mapping[str, str] | None = None,
) -> str:
    """`kd`, or `kd[temperature=2]` where it differs from the defaults.

    Of a sum part by part; a part with a preset is called `dkd@authors`.
    """
    parts = name.split("+")
    labels = []
    for part in parts:
        start = f"{part}." if len(parts) > 1 else ""
        odd = [
            f"{k.removeprefix(start)}={_text(v)}"
            for k, v in params.items()
            if k.startswith(start) and defaults.get(k) != v
        ]
        preset = (presets or {}).get(part)
        label = f"{part}@{preset}" if preset else part
        labels.append(f"{label}[{','.join(odd)}]" if odd else label)
    return "+".join(labels)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"
    return value if isinstance(value, str) else json.dumps(value)


def _first(text: str) -> Selection:
    return parse_selection(text)[0]


def with_controls(selections: Sequence[str], controls: Sequence[str]) -> list[str]:
    """The selections, with the controls that every table holds put first."""
    named = {
        selection.name
        for selection in map(_first, selections)
        if not selection.presets
        and not selection.compressions
        and not any("->" in str(value) for value in selection.params.values())
    }
    return [c for c in controls if c not in named] + list(selections)
