"""Checks of a training as such: that it ends, its terms, its teachers, its students."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.learning import ENDLESS, sinking
from kdbench.conformance.looking import ended
from kdbench.conformance.trainings import Subject
from kdbench.conformance.variants import live, terms_of
from kdbench.conformance.watched import Look
from kdbench.engine.learner import SPOILED
from kdbench.engine.teacher import CHANGED, LIVELY
from kdbench.pairing import why_muddled
from kdbench.settings import WHOLE

ELSEWHERE = {
    SPOILED: "inputs-unchanged",
    LIVELY: "teacher-frozen",
    CHANGED: "teacher-frozen",
    WHOLE: "settings-unchanged",
}
"""Words of the engine's reasons for a failed run, and the check that names them."""


@check(
    "strategy",
    what="A training of three epochs on a small pair ends without an error, and all "
    "its numbers are finite.",
    why="A run that fails has a reason in its record and no number in the tables.",
    fix="`loss` returns a dict of named scalar tensors, such as {'kd': 0.9 * kd}, in "
    "every step; it raises nothing and calls no sys.exit. For finite numbers use "
    "log_softmax instead of log(softmax), and add an epsilon before a root, a log or a "
    "division. `train` iterates context.epochs(), and context.batches() once in each, "
    "and returns the student.",
)
def trains(subject: Subject) -> None:
    muddled = why_muddled(subject.strategy)
    if muddled:  # and so no pair is supported
        raise Broken(muddled)
    try:
        watch = subject.watched()
    except DoesNotApply as nowhere:
        if WHOLE in str(nowhere):
            raise DoesNotApply(
                "it changes settings, see `settings-unchanged`"
            ) from None
        raise Broken(
            f"{nowhere}; train it where it can be: `kdbench check NAME --pair PAIR "
            "--dataset DATASET`, check_strategy(..., pair=..., dataset=...)"
        ) from None
    failure = watch.failure
    if failure is None:
        return
    for words, name in ELSEWHERE.items():
        if words in failure:
            raise DoesNotApply(f"its training failed, see `{name}`")
    home = subject.home
    said = [f"; {name!r} {ENDLESS}" for name in sinking(watch.trial.record)]
    where = f"the training of {home.pair} on {home.dataset}"
    raise Broken(f"{where} failed: {failure}{''.join(said)}")


@check(
    "strategy",
    what="`loss` returns the same names in every step of a phase, each with a scalar "
    "tensor of finite floating-point numbers that depends on a student or on the "
    "adapters.",
    why="Each term is a curve in the record. One that comes and goes is averaged over "
    "other steps than the rest; one that depends on nothing is in the sum, and in the "
    "curves, but nothing is learned from it.",
    fix="Return a weight of zero instead of leaving a term out (0.0 * term), keep what "
    "is only to be looked at out of the terms, and call no .detach(), .item() or "
    "torch.no_grad() on the way from a student's answer to its term.",
)
def finite_terms(subject: Subject) -> None:
    if subject.loops:
        raise DoesNotApply("it drives its own loop, and so returns no terms")
    watch = ended(subject)
    if watch.written:
        raise DoesNotApply("it writes to what it is shown, see `inputs-unchanged`")
    names: dict[str, tuple[str, ...]] = {}
    for look in watch.looks:
        terms = terms_of(subject.strategy, live(look.batch))
        for found in _wrong(terms):
            raise Broken(f"{_where(look)} {found}")
        known = names.setdefault(look.phase, tuple(sorted(look.terms)))
        if set(known) != set(look.terms):
            raise Broken(
                f"{_where(look)} the terms are {_listed(look.terms)}, and in the "
                f"phase's first step they are {_listed(known)}"
            )


def _wrong(terms: dict[str, Tensor]) -> Iterator[str]:
    """What is wrong with terms that the engine has taken, one by one."""
    for name, term in terms.items():
        if not isinstance(name, str) or not name:
            yield f"a term's name is {name!r}, which is no text"
        if not term.is_floating_point():
            yield f"the term {name!r} is of {term.dtype}, not of floating-point numbers"
        if not term.isfinite():
            yield f"the term {name!r} is {term.item():g}"
        if not term.requires_grad:
            yield (
                f"the term {name!r} depends neither on a student nor on the adapters "
                f"(it is {term.item():g})"
            )


def _where(look: Look) -> str:
    phase = f" of the phase {look.phase!r}" if look.phase else ""
    return f"in epoch {look.epoch + 1}{phase}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


@check(
    "strategy",
    what="Its teachers stay in eval mode and want no gradients, and their weights and "
    "buffers stay as they are.",
    why="A teacher in train mode answers by the batch at hand, and its batch norm "
    "drifts with every batch it sees: what is learned from is no longer the teacher "
    "that is in the table.",
    fix="Leave the teacher's mode alone (no teacher.train()), ask it under "
    "torch.no_grad(), give its parameters to no optimiser, and copy what is to be "
    "trained further: copy.deepcopy(teacher).",
)
def teacher_frozen(subject: Subject) -> None:
    failure = subject.watched().failure
    if failure and (LIVELY in failure or CHANGED in failure):
        raise Broken(failure)
    if failure:
        raise DoesNotApply("its training failed, see `trains`")
    if not subject.strategy.teachers and not subject.loops:
        raise DoesNotApply("it is shown no teacher")


@check(
    "strategy",
    what="Every module of a student is in train mode where its answer is learned from.",
    why="In eval mode batch norm uses its running statistics and stops updating them, "
    "and dropout is off: the student trains as another network than everybody else's.",
    fix="Call model.train() for every student at the start of each epoch, and after "
    "each evaluation of your own; ask for answers that are only looked at under "
    "torch.no_grad().",
)
def student_mode(subject: Subject) -> None:
    watch = ended(subject)
    for name, where in watch.modes.items():
        more = len(watch.modes) - 1
        others = f", and {more} further modules" if more else ""
        raise Broken(
            f"{where} {name} is in eval mode in a forward pass with gradients{others}"
        )
