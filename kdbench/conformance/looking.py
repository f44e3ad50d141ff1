"""What checks of a watched training share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdbench.api import Batch, Strategy
from kdbench.conformance.checks import DoesNotApply
from kdbench.conformance.toys import Toy
from kdbench.conformance.trainings import Subject
from kdbench.conformance.variants import live, terms_of
from kdbench.conformance.watched import Look, Watch

SMALL = 1e-3
"""A learning rate."""


def ended(subject: Subject, **recipe: Any) -> Watch:
    """The training at home, watched; DoesNotApply where it failed."""
    watch = subject.watched(**recipe)
    if watch.failure:
        raise DoesNotApply("its training failed, see `trains`")
    return watch


def elsewhere(subject: Subject, toy: Toy) -> Watch:
    """A short training on another pair, where only what fits together matters.

    At a small rate: weights that suit some pairs make others diverge at a large one.
    """
    return subject.watched(toy, epochs=1, lr=SMALL)


def latest(watch: Watch) -> list[Look]:
    """The latest step of each phase."""
    return list({look.phase: look for look in watch.looks}.values())


def listed(names: Iterable[str]) -> str:
    """Up to three names, and how many there are more."""
    all_ = sorted(names)
    more = f" and {len(all_) - 3} more" if len(all_) > 3 else ""
    return ", ".join(all_[:3]) + more


def values(strategy: Strategy, batch: Batch) -> Mapping[str, float]:
    """The terms, all drawn numbers the same; DoesNotApply where they still vary."""
    found = []
    for _ in range(2):
        terms = terms_of(strategy, live(batch))
        found.append({name: float(x.detach()) for name, x in terms.items()})
    if repr(found[0]) != repr(found[1]):
        raise DoesNotApply("one batch has other terms every time, see `own-randomness`")
    return found[0]
