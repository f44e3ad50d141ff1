"""A check that something is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.looking import ended
from kdbench.conformance.toys import STRIPES, Toy
from kdbench.conformance.trainings import Subject
from kdbench.records import Record

RECIPE: Mapping[str, Any] = {
    "epochs": 10,
    "optimiser": "adam",
    "lr": 0.01,
    "weight_decay": 0.0,
}
"""Adam's steps are as long for a loss of large weight as for one of small weight. The
bundled strategies come to 98% by it."""

BOTTOMLESS = -10.0
"""A term whose mean over the last epoch is below it, and falls, has no lower bound."""

ENDLESS = (
    "falls without end: a relation term added with the wrong sign, or a similarity "
    "that is minimised"
)


@check(
    "strategy",
    what="In ten epochs on a toy the student comes at least half of the way from "
    "chance, where an untrained one is, to no error at all.",
    why="All that is bundled gets there. What does not, minimises something else than "
    "it says: a sign, a dimension, a detached student or an un-normalised term.",
    fix="Look at the terms in this message. One that falls below zero without end is "
    "added with the wrong sign, or is a similarity: minimise 1 - similarity. One that "
    "does not fall has no path to the student, or is outweighed by another. Compare "
    "with a formula written a second time in float64 (`assert_same`).",
)
def learns(subject: Subject) -> None:
    if ended(subject).changed:
        raise DoesNotApply("it changes settings, see `settings-unchanged`")
    home = subject.home
    toy = Toy(STRIPES.get(home.dataset, home.dataset), home.pair)
    task = subject.host.dataset(toy.dataset).task
    if task.kind != "classification":
        raise DoesNotApply("its toy has no classes")
    record = subject.train(toy, **RECIPE).record
    said = _terms(record)
    if record.status == "failed":
        raise Broken(f"a training of ten epochs failed: {record.reason}; {said}")
    for name in sinking(record):
        raise Broken(f"the term {name!r} {ENDLESS}; {said}")
    chance = 100 / task.outputs
    wanted = (100 + chance) / 2
    reached = record.measures[record.headline.name]
    if reached is None or reached < wanted:
        raise Broken(
            f"after {RECIPE['epochs']} epochs of {toy.pair} on {toy.dataset} "
            f"{record.headline.name} is {reached or 0:.1f}%, chance is {chance:.0f}% "
            f"and {wanted:.0f}% are wanted; {said}"
        )


def _curves(record: Record) -> Mapping[str, Sequence[float | None]]:
    """Those of the loss's terms."""
    others = (record.headline.name, "lr")
    return {k: curve for k, curve in record.curves.items() if k not in others}


def _terms(record: Record) -> str:
    """What the terms did, in words."""
    parts = []
    for name, curve in _curves(record).items():
        known = [value for value in curve if value is not None]
        if known:
            parts.append(f"{name} from {known[0]:.3g} to {known[-1]:.3g}")
    return "terms: " + ("; ".join(parts) or "none was logged")


def sinking(record: Record) -> list[str]:
    """The terms that fall from epoch to epoch, and are far below zero in the end."""
    found = []
    for name, curve in _curves(record).items():
        last = [value for value in curve if value is not None][-3:]
        falls = all(after < before for before, after in pairwise(last))
        if len(last) > 1 and falls and last[-1] < BOTTOMLESS:
            found.append(name)
    return found
