"""Checks of what a strategy says of itself; nothing is trained."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from kdbench.api import Strategy, UserError
from kdbench.catalogue import card, field_comments, formula
from kdbench.citations import ARXIV, shipped
from kdbench.citations import cited as cited_papers
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.trainings import Subject

AUTHOR_AND_YEAR = re.compile(
    r"\b(?!(?:In|Since|Until|From|Before|After|By)\b)[A-Z][\w'-]+"
    r"(?:,? et al\.?| and others)?,? \(?(?:19|20)\d\d\b"
)
"""As docstrings name a paper: "Hinton et al. 2015", "Zhang and Sun (2018)"."""

COMMENT = re.compile(r"\S.*;\s*\S")
"""Unit or range, a semicolon, and the source."""

LEAVES = (int, float, str, bool, types.NoneType)
LISTS = (list, tuple, Sequence)
EITHER = (typing.Union, types.UnionType)

NONSENSE = {
    "_weight": ((-0.1, -1), ">= 0"),
    "temperature": ((0.0, 0), "> 0"),
    "_epochs": ((-0.1, -1), ">= 0"),
}
"""Ends of names: what such a float and such an int must not be, and what they must."""

LETTERS = {
    **dict.fromkeys(("alpha", "beta", "lambda", "lambd", "lam"), "..._weight"),
    **dict.fromkeys(("t", "tau", "temp"), "temperature"),
}
"""Names in papers and code, and what a hyper-parameter is called here."""


@check(
    "strategy",
    what="The class has a docstring of its own and names its source: in `paper`, or in "
    "its or its module's docstring, authors and a year or an arXiv number.",
    why="A table of numbers is worth nothing where nobody can look up which method "
    "they are of; reports cite every strategy.",
    fix='Write `paper = "Hinton et al. 2015, arXiv:1503.02531"` and a docstring that '
    "says what the student learns. A method that is not published says so: "
    '`paper = "unpublished"`.',
)
def cited(subject: Subject) -> None:
    kind = subject.kind
    if not card(subject.offer).summary:
        raise Broken(f"class {kind.__name__} has no docstring of its own")
    if cited_papers(kind.paper, shipped(kind.__module__)):
        return
    texts = (inspect.getdoc(kind) or "", formula(kind))
    if any(ARXIV.search(text) or AUTHOR_AND_YEAR.search(text) for text in texts):
        return
    if kind.family == "control" and kind.paper:
        return  # a baseline has no paper; a sentence says what it is for
    if "unpublished" in kind.paper:
        return
    said = f"`paper` is {kind.paper!r}" if kind.paper else "`paper` is empty"
    raise Broken(
        f"{said}, and neither the docstring of {kind.__name__} nor its module's has "
        "authors with a year or an arXiv number"
    )


@check(
    "strategy",
    what="Every hyper-parameter's annotation is of numbers, text, true/false, None or "
    "lists of these, and its default is of just that type.",
    why="Suites and the command line read values by the annotation, and records hold "
    "them as JSON: what is not typed is taken as it is written, and mistakes train on.",
    fix="Annotate it as int, float, bool, str, Literal[...] or tuple[float, ...], with "
    "names that can be looked up when the plugin runs (not only under TYPE_CHECKING), "
    "and give it a default of that type.",
)
def typed(subject: Subject) -> None:
    kind = subject.kind
    try:
        hints = typing.get_type_hints(kind)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise Broken(f"an annotation cannot be looked up ({what})") from error
    wrong = [
        f"{name}: {why}"
        for name, default in kind.parameters().items()
        if (why := _ill_typed(hints[name], default))
    ]
    known = {*kind.parameters(), *vars(Strategy), *Strategy.__annotations__}
    for name, value in vars(kind).items():
        plain = isinstance(value, int | float | str) and not name.startswith("_")
        if plain and name.islower() and name not in known:
            write = f"{name}: {type(value).__name__} = {value!r}"
            wrong.append(f"{name} is no hyper-parameter: write `{write}`")
    if wrong:
        raise Broken("; ".join(wrong))


def _ill_typed(hint: Any, default: object) -> str | None:
    foreign = _foreign(hint)
    if foreign is not None:
        return f"{_shown(foreign)} is none of int, float, bool, str, None and lists"
    try:
        TypeAdapter(hint).validate_python(default, strict=True)
    except PydanticSchemaGenerationError:
        return f"{_shown(hint)} cannot be read from a suite"
    except ValidationError:
        return f"the default {default!r} is no {_shown(hint)}"
    return None


def _foreign(hint: Any) -> Any | None:
    """The part of an annotation that is none of JSON's values; None if all are."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in LEAVES or hint in (None, ...) or origin is typing.Literal:
        return None
    if origin in (*LISTS, *EITHER):
        return next((found for part in parts if (found := _foreign(part))), None)
    return hint


def _shown(hint: Any) -> str:
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if plain else str(hint).replace("typing.", "")


@check(
    "strategy",
    what="Behind every hyper-parameter stands a comment: its unit or range, a "
    "semicolon, and where its default is from.",
    why="A default without a source cannot be told from a guess, and a range that is "
    "not written down is found out by failing runs. `kdbench show`, docs and reports "
    "print these comments.",
    fix="Write it in the same line: `temperature: float = 4.0  # dimensionless, > 0; "
    "the paper, section 3`. Your own choice is a source, too: `; ours`.",
)
def documented(subject: Subject) -> None:
    kind = subject.kind
    try:
        inspect.getsource(kind)
    except (OSError, TypeError):
        raise DoesNotApply("its source cannot be read") from None
    comments = field_comments(kind)
    wrong = []
    for name in kind.parameters():
        if name not in comments:
            wrong.append(f"{name} has no comment in its line")
        elif not COMMENT.search(comments[name]):
            wrong.append(f"{name} has {comments[name]!r}, with no source behind a ;")
    if wrong:
        raise Broken("; ".join(wrong))


@check(
    "strategy",
    what="The class is frozen, its values written as JSON and read again make an equal "
    "one, and it can be pickled.",
    why="Records hold the values, worker processes are sent the strategy: if either "
    "makes another strategy, the number in the table is not that of its row.",
    fix="Use @dataclass(frozen=True, kw_only=True) at the top of a module, let "
    "__post_init__ check values and not change them, and keep nothing in the instance.",
)
def round_trip(subject: Subject) -> None:
    kind = subject.kind
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise Broken(f"class {kind.__name__} is not frozen: its values can be assigned")
    strategy = kind.configured({})
    values = strategy.values()
    again = kind.configured(json.loads(json.dumps(values, allow_nan=False)))
    _same("JSON", strategy, again)
    try:
        copy = pickle.loads(pickle.dumps(strategy))  # noqa: S301 - just pickled
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise Broken(f"it cannot be pickled ({what})") from error
    _same("pickling", strategy, copy)


def _same(way: str, strategy: Strategy, again: Strategy) -> None:
    if type(strategy) is not type(again):
        raise Broken(f"after {way} it is a {type(again).__name__}")
    now = again.values()
    changed = [
        f"{name} was {value!r} and is {now[name]!r}"
        for name, value in strategy.values().items()
        if now[name] != value
    ]
    if changed:
        raise Broken(f"after {way} {', '.join(changed)}")
    if strategy != again:
        raise Broken(f"after {way} it is unequal, though all its values are equal")


@check(
    "strategy",
    what="A negative weight or number of epochs and a temperature of 0 are refused, by "
    "a message that names the hyper-parameter.",
    why="A sign lost in a suite would train for hours towards the opposite, or divide "
    "by zero.",
    fix="Strategy.__post_init__ refuses them: call super().__post_init__() first in "
    "your own, or leave yours out. Your own messages begin with the name.",
)
def refuses_nonsense(subject: Subject) -> None:
    kind, asked, wrong = subject.kind, 0, []
    for name, default in kind.parameters().items():
        for end, (values, must) in NONSENSE.items():
            if not name.endswith(end) or type(default) not in (int, float):
                continue
            asked += 1
            value = values[isinstance(default, int)]
            said = _refusal(kind, name, value)
            if said is None:
                wrong.append(f"{name}={value} is taken, which must be {must}")
            elif not re.search(rf"\b{name}\b", said):
                wrong.append(f"{name}={value} is refused without its name: {said!r}")
    if wrong:
        raise Broken("; ".join(wrong))
    if not asked:
        raise DoesNotApply("it has no weight, temperature or number of epochs")


def _refusal(kind: type[Strategy], name: str, value: float) -> str | None:
    """What it says against this value, without the name of the strategy."""
    try:
        kind.configured({name: value})
    except UserError as error:
        return str(error).removeprefix(f"{kind.name}: ")
    return None


@check(
    "strategy",
    what="No hyper-parameter is called alpha, beta, lambda, T or tau: weights are "
    "`..._weight`, temperatures `temperature` or `..._temperature`.",
    why="In one toolbox alpha is the teacher's weight, in another that of the labels. "
    "And by the name kdbench knows what a number is: a negative weight is refused, and "
    "weights and temperatures can change over the training (`4->1`).",
    fix="Rename it after what it weighs (ce_weight, kd_weight), and give the paper's "
    "letter in the comment: `kd_weight: float = 0.9  # >= 0, alpha; the paper`.",
)
def plain_names(subject: Subject) -> None:
    wrong = [
        f"{name} (call it {meant})"
        for name in subject.kind.parameters()
        for word in name.lower().split("_")
        if (meant := LETTERS.get(word))
    ]
    if wrong:
        raise Broken(f"a letter for a name: {', '.join(dict.fromkeys(wrong))}")
