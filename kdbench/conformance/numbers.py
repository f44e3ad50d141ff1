"""Checks of what a strategy bears: few items, few classes, large numbers, any pair."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.api import Batch, Strategy
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.looking import elsewhere, ended, listed
from kdbench.conformance.toys import ELSEWHERE, HOMES, Toy
from kdbench.conformance.trainings import Subject
from kdbench.conformance.variants import (
    first_items,
    is_answer,
    is_teachers,
    live,
    mapped,
    named,
    parts,
    scaled_logits,
    terms_of,
)
from kdbench.engine.faults import reason_of
from kdbench.engine.terms import total_of

LARGE = 1e4
"""Logits times this: softmax is 0 and 1 to the last bit."""

WORDS = 3
"""A sentence has as many, at least."""


@check(
    "strategy",
    what="Terms and gradients of a batch of a single item are finite.",
    why="The last batch of an epoch may have one item. Batch norm over a single vector "
    "raises, a deviation over one item is nan: hours of training end there.",
    fix="Keep batch norm in adapters from a single value per channel (its running "
    "values can stand in), and give relations between items a value where there are "
    "none.",
)
def batch_of_one(subject: Subject) -> None:
    watch = ended(subject)
    if subject.loops:
        assert watch.learner is not None  # noqa: S101 - it trained
        failure = subject.watched(batch_size=watch.learner.feed.items - 1).failure
        if failure:
            raise Broken(f"with one item in the last batch: {failure}")
        return
    for look in watch.looks:
        refuse_not_finite(
            subject.strategy, first_items(look.batch, 1), "for a batch of one item"
        )


def refuse_not_finite(strategy: Strategy, batch: Batch, where: str) -> None:
    """Raise Broken for terms or gradients that are not finite."""
    shown = live(batch)
    try:
        terms = terms_of(strategy, shown)
        total = total_of(terms)
    except Exception as error:
        raise Broken(f"{where}, it raised {reason_of(error)}") from error
    bad = [
        f"the term {k!r} is {float(x.detach())}" for k, x in terms.items() if _odd(x)
    ]
    leaves = dict(named(shown))
    leaves |= {f"adapters: {name}": p for name, p in parts(shown.adapters)}
    leaves = {name: x for name, x in leaves.items() if x.requires_grad}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    odd = [name for name, x in zip(leaves, found, strict=True) if _odd(x)]
    if odd:
        bad.append(f"the gradient of {listed(odd)} is not finite")
    if bad:
        raise Broken(f"{where}, {'; '.join(bad)}")


def _odd(x: Tensor | None) -> bool:
    return x is not None and not bool(x.isfinite().all())


@check(
    "strategy",
    what="It trains where there are two classes.",
    why="Two classes are the smallest task there is, and common: what takes the third "
    "best class, or divides by C - 2, fails there.",
    fix="Take the number of classes from the logits, and say in `supports` which "
    "numbers of classes it cannot serve.",
)
def two_classes(subject: Subject) -> None:
    ended(subject)
    toy = subject.two_classes()
    why = subject.refusal(toy)
    if why is not None:
        raise DoesNotApply(f"it refuses two classes: {why}")
    failure = subject.watched(toy).failure
    if failure:
        raise Broken(f"on {toy.dataset} its training failed: {failure}")


@check(
    "strategy",
    what=f"Terms and gradients are finite where everybody's logits are {LARGE:g} times "
    "as large, of either sign, agreeing and disagreeing.",
    why="Sure networks have such logits, and so has a training that is about to "
    "diverge: log(softmax(z)) is -inf there, and 0 * inf is nan.",
    fix="Use log_softmax, logsumexp and cross_entropy, which are exact for any logits, "
    "and no log, division or square root of a probability.",
)
def extreme_logits(subject: Subject) -> None:
    watch = ended(subject)
    if subject.loops:
        raise DoesNotApply("it drives its own loop, and shows no terms")
    for look in watch.looks:
        for how, batch in _extremes(look.batch).items():
            where = f"with all logits times {LARGE:g}{how}"
            refuse_not_finite(subject.strategy, batch, where)


def _extremes(batch: Batch) -> dict[str, Batch]:
    """Batches of large logits, by what else is done to them."""
    all_ = [x for name, x in named(batch).items() if _is_logits(name)]

    def one(name: str, x: Tensor) -> Tensor:
        agrees = _is_logits(name) and x.shape == all_[0].shape
        return all_[0] if agrees else x

    def against(name: str, x: Tensor) -> Tensor:
        other = is_teachers(name) ^ any(f"student {k}" in name for k in range(1, 9, 2))
        return -x if _is_logits(name) and other else x

    return {
        "": scaled_logits(batch, LARGE),
        " and turned round": scaled_logits(batch, -LARGE),
        " and everybody's the same": scaled_logits(mapped(batch, one), LARGE),
        " and one side's turned round": scaled_logits(mapped(batch, against), LARGE),
    }


def _is_logits(name: str) -> bool:
    return is_answer(name) and name.endswith(": logits")


@check(
    "strategy",
    what="It trains in float32 and in bfloat16, and its terms are float32 or float64 "
    "in both.",
    why="A recipe may ask for bfloat16, which is for the networks: answers come in "
    "float32. A loss in half precision has 3 digits, or overflows at 65504.",
    fix="Compute with the answers as they come, without .half(), .bfloat16() or "
    "autocast; kdbench.losses.at_least_float32 widens what may be narrow.",
)
def precisions(subject: Subject) -> None:
    for precision, watch in (
        ("float32", ended(subject)),
        ("bfloat16", subject.watched(precision="bfloat16")),
    ):
        if watch.failure:
            raise Broken(f"with precision {precision} it failed: {watch.failure}")
        for look in watch.looks:
            for name, value in look.terms.items():
                if value.dtype not in (torch.float32, torch.float64):
                    kind = str(value.dtype).removeprefix("torch.")
                    raise Broken(
                        f"the term {name!r} is {kind} where the recipe's precision is "
                        f"{precision}"
                    )


@check(
    "strategy",
    what="On every pair of models it either trains or is refused by `supports`, which "
    "returns a sentence and does not raise.",
    why="Whoever runs a suite on another pair gets a crash otherwise, after the "
    "teacher was trained: channels written into the code fit one pair alone.",
    fix="Build adapters from `student.shapes` and `teacher.shapes`, and return from "
    "`supports` why a pair cannot be served, or None.",
)
def cross_family(subject: Subject) -> None:
    served: list[Toy] = []
    for toy in dict.fromkeys((*subject.toys, *HOMES, *ELSEWHERE)):
        why: object = subject.refusal(toy)
        if why is None:
            served.append(toy)
        elif not isinstance(why, str) or len(why.split()) < WORDS:
            raise Broken(f"on {toy.pair} `supports` returned {why!r}, no sentence")
        elif why.startswith("supports() raised"):
            raise Broken(f"on {toy.pair} {why}")
    home = subject.home
    ended(subject)
    for toy in served:
        failure = toy != home and elsewhere(subject, toy).failure
        if failure:
            about = f" ({toy.about})" if toy.about else ""
            raise Broken(
                f"on {toy.pair}{about} `supports` has no objection, and it failed: "
                f"{failure}"
            )
