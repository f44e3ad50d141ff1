"""Everything that plugins are written against, a line each.

`python tests/frozen/public_api.py` says what is new since tests/frozen/api-1.txt, what
broke, and adds what is new to that file. It never takes a line out: one that is gone
or changed is a promise broken (docs/plugins.md says what is promised).
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

FROZEN = Path(__file__).with_name("api-1.txt")
OVERRIDDEN = "kdbench.Strategy."
"""Methods that kdbench calls and plugins write: one argument more breaks those."""
HOOKS = "kdbench.hookspecs."
"""Here a plugin takes the arguments that it wants."""
VERSIONS = ("protocol", "engine")
"""Fields of a run whose default is meant to change."""


def lines() -> list[str]:
    """What there is now."""
    import kdbench
    from kdbench import api, hookspecs, testing

    known: dict[int, str] = {}
    found: list[str] = []
    for module, names in (
        (kdbench, kdbench.__all__),
        (api, api.__all__),
        (testing, _own_names(testing)),
        (hookspecs, [n for n in dir(hookspecs) if n.startswith("kdbench_")]),
    ):
        for name in names:
            thing, path = getattr(module, name), f"{module.__name__}.{name}"
            if id(thing) in known:
                found.append(f"{path} is {known[id(thing)]}")
                continue
            known[id(thing)] = path
            found += _described(path, thing)
    return sorted(found)


def _own_names(module: ModuleType) -> list[str]:
    """What a module without `__all__` defines itself, fixtures too."""
    named = getattr(module, "__all__", None)
    return named or [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and getattr(thing, "__module__", None) == module.__name__
    ]


def _described(path: str, thing: Any) -> Iterator[str]:
    if isinstance(thing, type):
        bases = ", ".join(base.__name__ for base in thing.__bases__)
        yield f"class {path}({bases})"
        yield from _members(path, thing)
    elif inspect.isfunction(thing):
        yield from _callable(path, thing)
    elif isinstance(thing, tuple) and all(isinstance(item, str) for item in thing):
        for item in thing:
            yield f"{path} has {item!r}"
    elif type(thing).__module__ in ("types", "typing"):
        yield f"{path} = {_shown(thing)}"
    else:
        kind = type(thing).__name__
        yield f"{path}: {'fixture' if kind.startswith('Fixture') else kind}"


def _members(path: str, kind: type) -> Iterator[str]:
    if issubclass(kind, BaseModel):
        yield from _fields(path, kind)
    elif dataclasses.is_dataclass(kind):
        yield from _parameters(path, kind)
    else:
        for name, annotation in inspect.get_annotations(kind).items():
            if not name.startswith("_"):
                default = f" = {vars(kind)[name]!r}" if name in vars(kind) else ""
                yield f"{path}.{name}: {_shown(annotation)}{default}"
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            result = inspect.signature(member.fget).return_annotation  # type: ignore[arg-type]
            yield f"{path}.{name} -> {_shown(result)}"
        elif isinstance(member, classmethod | staticmethod):
            yield from _callable(f"{path}.{name}", getattr(kind, name))
        elif inspect.isfunction(member):
            yield from _callable(f"{path}.{name}", member)


def _fields(path: str, kind: type[BaseModel]) -> Iterator[str]:
    annotations = inspect.get_annotations(kind)
    for name, field in kind.model_fields.items():
        default = "" if field.default is PydanticUndefined else f" = {field.default!r}"
        if field.default_factory is not None or name in VERSIONS:
            default = " = made"
        yield f"{path}(* {name}: {_shown(annotations[name])}{default})"


def _callable(path: str, function: Any) -> Iterator[str]:
    result = inspect.signature(function).return_annotation
    yield f"{path}() -> {_shown(result)}"
    yield from _parameters(path, function)


def _parameters(path: str, function: Any) -> Iterator[str]:
    """Each by its place, or "*" where it is given by name."""
    parameters = inspect.signature(function).parameters.values()
    for place, one in enumerate(p for p in parameters if p.name != "self"):
        by_name = one.kind is one.KEYWORD_ONLY or path.startswith(HOOKS)
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        default = "" if one.default is one.empty else f" = {_default(one.default)}"
        at = "*" if by_name else place
        yield f"{path}({at} {stars}{one.name}: {_shown(one.annotation)}{default})"


def _shown(annotation: Any) -> str:
    """Without the modules' names, which depend on how a file imports and on torch."""
    if annotation is inspect.Signature.empty:
        return "?"
    whole = isinstance(annotation, str)
    text = annotation if whole else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _default(value: Any) -> str:
    return "made" if "factory" in repr(value) else repr(value)


def broken(frozen: Sequence[str], now: Sequence[str]) -> list[str]:
    """What plugins rely on and is gone or changed, and what they cannot know of."""
    gone = [f"gone or changed: {line}" for line in frozen if line not in now]
    owners = {line.partition("(")[0] for line in frozen}
    for line in now:
        match = re.match(r"([\w.]+)\((?:\d+|\*) (?P<rest>.+)\)$", line)
        if line in frozen or match is None or match[1] not in owners:
            continue
        required = " = " not in match["rest"] and not match["rest"].startswith("*")
        if match[1].startswith(OVERRIDDEN) or (
            required and not match[1].startswith(HOOKS)
        ):
            gone.append(f"a further argument: {line}")
    return gone


def main() -> int:
    now = lines()
    frozen = FROZEN.read_text().splitlines() if FROZEN.is_file() else []
    problems = broken(frozen, now)
    new = [line for line in now if line not in frozen]
    for problem in problems:
        print(problem, file=sys.stderr)
    for line in new:
        print(f"new: {line}")
    if not problems:
        FROZEN.write_text("".join(f"{line}\n" for line in sorted({*frozen, *now})))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
