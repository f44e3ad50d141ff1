"""Checks that a training can be repeated: again, in company, after a stop."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from kdbench.api import UserError
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.looking import ended
from kdbench.conformance.trainings import Subject, Trial
from kdbench.randomness import seeded_back

COMPANY = ("label_smoothing", "scratch")

STOPS = (2, 4, 8, 12)
"""Of a strategy that the engine steps, which asks after each of eight steps: in the
middle of an epoch, after an epoch's last step, and early and late in later ones."""

LOOP_STOPS = (2, 12, 8)
"""Of one with its own loop, which asks before each batch and after each epoch: in the
middle of the first and the second epoch, and at an end."""


@check(
    "strategy",
    what="Two trainings with one seed have the same bits: curves, measures, weights.",
    why="A number that cannot be had again proves nothing, and the difference between "
    "two strategies may be chance.",
    fix="Draw from `batch.generator` (of torch alone), seed nothing by the time or by "
    "id() or hash(), go through no set, and keep nothing in the class or the module.",
)
def same_seed(subject: Subject) -> None:
    first = _undisturbed(subject)
    with seeded_back():
        torch.rand(7)
        random.random()  # noqa: S311 - only to have been drawn from
        np.random.rand(7)  # noqa: NPY002
        second = subject.train(again=1)
    _compare(first, second, "two trainings of one seed")


@check(
    "strategy",
    what="Trained beside others, and beside itself at another setting, it has the bits "
    "that it has alone.",
    why="All strategies of a seed are trained side by side: a number that depends on "
    "who else is there is no number of this strategy.",
    fix="Keep what lasts in the nn.Module that `adapters` returns, or in "
    "context.state; nothing in the class, in a global variable or in a cache.",
)
def company(subject: Subject) -> None:
    alone = _repeatable(subject)
    other = _other_setting(subject)
    beside = [name for name in COMPANY if name != subject.name]
    beside += [other] if other else []
    for last in (False, True):
        told = f"beside {', '.join(beside)}, {'after' if last else 'before'} them,"
        found = subject.train(company=tuple(beside), last=last)
        _compare(alone, found, f"alone and {told}")


@check(
    "strategy",
    what="A training that is stopped several times and goes on from its checkpoints "
    "has the bits of an undisturbed one.",
    why="Long trainings are stopped, by a time limit or a power cut, and go on: what "
    "the checkpoint does not have starts again at its beginning, unnoticed.",
    fix="Keep what lasts from step to step in parameters and buffers of the nn.Module "
    "that `adapters` returns (register_buffer; a counter is a tensor, too), or in "
    "context.state; take progress from `batch.progress`, not from a count of steps.",
)
def resume(subject: Subject) -> None:
    whole = _repeatable(subject)
    stops = LOOP_STOPS if subject.loops else STOPS
    stopped = subject.train(stops=stops)
    _compare(whole, stopped, f"undisturbed and stopped {len(stops)} times")


def _undisturbed(subject: Subject) -> Trial:
    """The training as anybody would do it; DoesNotApply where it cannot be had."""
    watch = ended(subject)
    if watch.drawn:
        raise DoesNotApply("it uses global random generators, see `own-randomness`")
    if watch.changed:
        raise DoesNotApply("it changes settings, see `settings-unchanged`")
    if watch.written:
        raise DoesNotApply("it writes to what it is shown, see `inputs-unchanged`")
    return subject.train()


def _repeatable(subject: Subject) -> Trial:
    first = _undisturbed(subject)
    if first.bits != subject.train(again=1).bits:
        raise DoesNotApply("two trainings of one seed differ, see `same-seed`")
    return first


def _other_setting(subject: Subject) -> str:
    """The strategy as a suite writes it with another number; "" where it has none."""
    for name, value in subject.strategy.values().items():
        if isinstance(value, float):
            for other in (0.5 * value, value + 0.5):
                try:
                    subject.kind.configured({**subject.strategy.values(), name: other})
                except UserError:
                    continue
                if other != value:
                    return subject.text(**{name: other})
    return ""


def _compare(one: Trial, other: Trial, what: str) -> None:
    """Raise Broken with what differs first between two trainings."""
    found = difference(one.bits, other.bits)
    if found:
        raise Broken(f"{what} differ: {found}")


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where the bits of two trainings differ first, "" where they do not."""
    for key in ("status", "reason"):
        if one[key] != other[key]:
            return f"the run {one['reason'] or 'ends'}, and {other['reason'] or 'ends'}"
    earliest = []
    for name in sorted({*one["curves"], *other["curves"]}):
        pairs = zip_longest(one["curves"].get(name, ()), other["curves"].get(name, ()))
        for epoch, (a, b) in enumerate(pairs):
            if a != b:
                earliest.append((epoch, f"the curve {name!r} has {a} and {b}"))
                break
    if earliest:
        epoch, text = min(earliest)
        return f"{text} in epoch {epoch + 1}"
    if one["weights"] != other["weights"]:
        return "the student's weights, while all curves are equal"
    for name in sorted({*one["measures"], *other["measures"]}):
        a, b = one["measures"].get(name), other["measures"].get(name)
        if a != b:
            return f"the measure {name!r} is {a} and {b}"
    return ""
