"""Checks of what is learned and from what: parameters, features, weights of terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, combinations
from math import isfinite

import torch
from torch import Tensor, nn

from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.dependence import (
    FAMILIES,
    counting,
    is_of,
    last_of,
    reads_head,
)
from kdbench.conformance.looking import elsewhere, ended, latest, listed, values
from kdbench.conformance.scaling import refuse_interplay, scales
from kdbench.conformance.toys import ELSEWHERE, HOMES
from kdbench.conformance.trainings import Subject
from kdbench.conformance.variants import is_teachers, named, scaled_logits
from kdbench.conformance.watched import Watch
from kdbench.engine.phases import Schedule
from kdbench.engine.watching import OF_EVERY_MODULE

CERTAIN = 100.0
"""Logits times this are those of a sure model: what waits for one takes part."""


@check(
    "strategy",
    what="The terms send gradients to every student that learns and to everything "
    "that is in the optimiser, and to nothing else.",
    why="What no optimiser holds stays as it was drawn, though the loss counts on it: "
    "a learned variance becomes a constant. What is held and not used only decays.",
    fix="Return every learned part from `adapters` in an nn.Module, use all of it in "
    "the loss, and detach what is only to be learned from.",
)
def gradients(subject: Subject) -> None:
    watch = ended(subject)
    if subject.loops:
        _gradients_of_loop(watch)
        return
    strategy = subject.strategy
    learner = watch.learner
    assert learner is not None  # noqa: S101 - it trained
    everyone = tuple(range(len(learner.modules)))
    schedule = Schedule(strategy.phases(), learner.recipe)
    learnt: set[int] = set()
    for look in watch.looks:
        students = schedule.at(look.epoch).students
        learning = everyone if students is None else students
        learnt.update(learning)
        learn = {f"student {k}" for k in learning}
        stray = {
            name
            for name in look.reached
            if name not in watch.held
            or (name.startswith("student ") and name.partition(":")[0] not in learn)
        }
        if stray:
            where = f" in the phase {look.phase!r}" if look.phase else ""
            raise Broken(
                f"a gradient goes to {listed(stray)}, which no optimiser holds{where}"
            )
    for k in sorted(learnt):
        if not any(name.startswith(f"student {k}: ") for name in watch.moved):
            raise Broken(f"no gradient other than zero arrives at student {k}")
    idle = watch.held - watch.moved
    idle -= {name for look in watch.looks for name in look.reached}
    if strategy.deploys_another:
        idle = {name for name in idle if not name.startswith("student ")}
    if idle:
        raise Broken(f"no term depends on {listed(idle)}, which the optimiser holds")


def _gradients_of_loop(watch: Watch) -> None:
    """Of a strategy with its own loop, by the gradients that optimisers found."""
    assert watch.learner is not None  # noqa: S101 - it trained
    if not watch.held:
        raise DoesNotApply("it asks for no optimiser")
    stray = {
        f"student {k}: {name}"
        for k, student in enumerate(watch.learner.modules)
        for name, parameter in student.named_parameters()
        if parameter.grad is not None
    } - watch.held
    if stray:
        raise Broken(f"a gradient goes to {listed(stray)}, which no optimiser holds")
    idle = watch.held - watch.moved
    if idle:
        raise Broken(f"{listed(idle)} is in an optimiser and never got a gradient")


@check(
    "strategy",
    what="Everything that changes in training is a parameter or buffer of the adapters "
    "and in their state_dict; the strategy object stays as it was made.",
    why="Only that is trained, moved to the device and saved. The rest is lost when a "
    "run is resumed, and one run may find what another one left.",
    fix="Register layers (nn.ModuleList, not a list) and tensors (`register_buffer`) "
    "in `__init__`, count in a buffer, and keep nothing in the strategy.",
)
def adapters_kept(subject: Subject) -> None:
    watch = ended(subject)
    learner = watch.learner
    assert learner is not None  # noqa: S101 - it trained
    _refuse_changes(
        "the strategy", _attributes(subject.strategy), _attributes(learner.strategy)
    )
    adapters = learner.adapters
    if adapters is None:
        return
    before = watch.looks[0].batch.adapters
    assert before is not None  # noqa: S101 - a copy of them
    _refuse_loose(adapters)
    _refuse_unsaved(before, adapters)
    optimiser: torch.optim.Optimizer = learner.optimiser  # type: ignore[assignment]
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in adapters.named_parameters():
        if parameter.requires_grad and id(parameter) not in held:
            raise Broken(f"adapters: {name} wants a gradient and is in no optimiser")
    for path, module in adapters.named_modules():
        place = f"adapters.{path}" if path else "adapters"
        old = _attributes(before.get_submodule(path))
        _refuse_changes(place, old, _attributes(module))


def _attributes(owner: object) -> dict[str, object]:
    """What Python keeps in it, without what every module has or is worked out once."""
    return {
        key: value
        for key, value in getattr(owner, "__dict__", {}).items()
        if key not in OF_EVERY_MODULE
        and not isinstance(getattr(type(owner), key, None), cached_property)
    }


def _refuse_changes(
    owner: str, before: Mapping[str, object], after: Mapping[str, object]
) -> None:
    for key, value in after.items():
        if key not in before:
            raise Broken(f"{owner} got an attribute `{key}` in training")
        old, new = repr(_plain(before[key])), repr(_plain(value))
        if old != new:
            raise Broken(
                f"`{key}` of {owner} changed in training, from {old[:60]} to {new[:60]}"
            )


def _plain(value: object, depth: int = 3) -> object:
    """Numbers and text as they are, within collections too; of the rest the kind."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, Mapping) and depth:
        return {str(key): _plain(x, depth - 1) for key, x in value.items()}
    if isinstance(value, Sequence) and depth:
        return [_plain(x, depth - 1) for x in value]
    return type(value).__name__


def _refuse_loose(adapters: nn.Module) -> None:
    """No tensor or module that is there without being registered."""
    parts = adapters.modules(), adapters.parameters(), adapters.buffers()
    known = {id(thing) for thing in chain(*parts)}
    for path, module in adapters.named_modules():
        for key, value in _attributes(module).items():
            for thing in _within(value):
                if id(thing) not in known:
                    where = f"adapters.{path}" if path else "adapters"
                    raise Broken(
                        f"`{key}` of {where} holds a {type(thing).__name__} that is "
                        "not registered"
                    )


def _within(value: object, depth: int = 3) -> Iterator[Tensor | nn.Module]:
    """Tensors and modules in an attribute, but for what a forward pass worked out."""
    if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.is_leaf):
        yield value
    elif isinstance(value, Mapping) and depth:
        for thing in value.values():
            yield from _within(thing, depth - 1)
    elif isinstance(value, (list, tuple, set)) and depth:
        for thing in value:
            yield from _within(thing, depth - 1)


def _refuse_unsaved(before: nn.Module, adapters: nn.Module) -> None:
    """The state is complete, and there from the start."""
    saved = set(adapters.state_dict())
    late = saved ^ set(before.state_dict())
    if late:
        raise Broken(
            f"adapters: {listed(late)} came or went in training; what is not there "
            "from the start cannot be restored"
        )
    old = dict(before.named_buffers())
    for name, buffer in adapters.named_buffers():
        if name not in saved and not torch.equal(buffer, old[name]):
            raise Broken(
                f"adapters: the buffer {name} changes in training and is not in their "
                "state_dict (persistent=False)"
            )


@check(
    "strategy",
    what="Every tapped feature counts: some term changes when it is noise. On pairs "
    "with other numbers of stages the student's last one still counts, if it did.",
    why="A feature that nothing depends on is a forgotten term, or a student compared "
    "with itself. `zip` silently drops stages where one model has more of them.",
    fix="Tap what the loss reads, no more. Where the numbers of stages may differ, "
    "state which learns from which, or refuse in `supports`; zip(..., strict=True).",
)
def every_tap_counts(subject: Subject) -> None:
    watch = ended(subject)
    strategy = subject.strategy
    wanted = [tap for tap in strategy.taps if tap != "logits"]
    if subject.loops or not wanted:
        raise DoesNotApply("it taps no features")
    home = subject.home
    counts = counting(strategy, watch)
    for tap in wanted:
        found = {name for name in counts if is_of(tap, name)}
        if not found and not (tap == "pooled" and reads_head(strategy, watch)):
            raise Broken(
                f"on {home.pair} no term changes when {tap!r} is noise, neither the "
                "student's nor the teacher's"
            )
    taught = any(is_teachers(x) for look in watch.looks for x in named(look.batch))
    if taught and not any(map(is_teachers, counts)):
        raise Broken(
            f"on {home.pair} no term changes when any answer of the teacher is noise"
        )
    lists = [tap for tap in wanted if tap in FAMILIES and last_of(watch, tap) & counts]
    for toy in (*HOMES, *ELSEWHERE) if lists else ():
        if toy == home or subject.refusal(toy) is not None:
            continue
        there = elsewhere(subject, toy)
        if there.failure:
            continue  # `cross-family` says so
        counts = counting(strategy, there)
        for tap in lists:
            last = last_of(there, tap)
            if not last & counts:
                raise Broken(
                    f"on {toy.pair} ({toy.about}) no term changes when "
                    f"{listed(last)} is noise, though the last of the student's {tap} "
                    f"counts on {home.pair}"
                )


@check(
    "strategy",
    what="Each `..._weight` scales its part of the loss and nothing else: every term "
    "is a straight line in it, and no weight changes what another one scales.",
    why="Otherwise who tunes a weight changes two things at once: T^2 that is dropped "
    "where a weight is 0, or a `kd_weight` that also leaves 1 - kd_weight to labels.",
    fix='Write `"kd": self.kd_weight * kd` and `"ce": self.ce_weight * ce`, both with '
    "weights of their own, and leave `if self.kd_weight:` to skipping a whole term.",
)
def weights_scale(subject: Subject) -> None:
    watch = ended(subject)
    if subject.loops:
        raise DoesNotApply("it drives its own loop, and shows no terms")
    weights = [
        name
        for name, value in subject.kind.parameters().items()
        if name.endswith("_weight") and type(value) in (int, float)
    ]
    if not weights:
        raise DoesNotApply("it has no hyper-parameter `..._weight`")
    batches = [
        batch
        for look in latest(watch)
        for batch in (look.batch, scaled_logits(look.batch, CERTAIN))
        if all(map(isfinite, values(subject.strategy, batch).values()))
    ]
    for name in weights:
        works = [scales(subject, name, batch) for batch in batches]
        # where it does not, what it is multiplied by may be 0 by default
        ones = {x: 1.0 for x in weights if not subject.strategy.values()[x]}
        if not any(works) and not any(
            scales(subject, name, batch, **ones) for batch in batches
        ):
            raise Broken(f"no term changes with {name}")
    for pair in combinations(weights, 2):
        for batch in batches:
            refuse_interplay(subject, pair, batch)
