"""What a weight does to the terms of a strategy, found by trying three values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from kdbench.api import Batch, UserError
from kdbench.conformance.checks import Broken
from kdbench.conformance.looking import listed, values
from kdbench.conformance.trainings import Subject

SAME = 1e-6
"""What one number may differ by where it is computed twice, relative to itself."""

ROUNDING = 1e-4
"""What float32 may make of equal numbers, relative to the largest of them."""


def _terms_at(subject: Subject, batch: Batch, **weights: float) -> Mapping[str, float]:
    """The terms with these weights; UserError where the strategy refuses them."""
    given = {**subject.strategy.values(), **weights}
    return values(subject.kind.configured(given), batch)


def scales(subject: Subject, name: str, batch: Batch, **others: float) -> bool:
    """Whether a term changes with the weight; Broken where that is no scaling."""
    unit = subject.strategy.values()[name] or 1.0
    start = 0.0 if _accepts_zero(subject, name) else unit
    places = [start, start + unit, start + 2 * unit]
    found = [_terms_at(subject, batch, **others | {name: at}) for at in places]
    relabelled = replace(batch, targets=batch.targets.roll(1, 0))
    again = [_terms_at(subject, relabelled, **others | {name: at}) for at in places]
    scaled = set()
    for term in dict.fromkeys(chain(*found)):
        points = [terms.get(term, 0.0) for terms in found]
        labels = [
            x - terms.get(term, 0.0) for x, terms in zip(points, again, strict=True)
        ]
        if _constant(points):
            continue
        scaled.add(term)
        said = ", ".join(
            f"{x:.6g} at {at:g}" for x, at in zip(points, places, strict=True)
        )
        if not _straight(points):
            raise Broken(f"the term {term!r} is no straight line in {name}: {said}")
        if _is_rest(points, places):
            raise Broken(f"the term {term!r} is scaled by 1 - {name}: {said}")
        if not _vanishing(labels, points) and _is_rest(labels, places):
            raise Broken(f"the labels' part of {term!r} is scaled by 1 - {name}")
    own = name.removesuffix("_weight")
    if scaled and own not in scaled and found[1].get(own):
        raise Broken(f"{name} scales {listed(scaled)}, and not the term {own!r}")
    return bool(scaled)


def _accepts_zero(subject: Subject, name: str) -> bool:
    try:
        subject.kind.configured({**subject.strategy.values(), name: 0.0})
    except UserError:
        return False
    return True


def refuse_interplay(subject: Subject, pair: tuple[str, str], batch: Batch) -> None:
    """Two weights may be factors of one another, and must be apart otherwise."""
    units = [subject.strategy.values()[name] or 1.0 for name in pair]
    grid = [(0.0, 0.0), (units[0], 0.0), (0.0, units[1]), (units[0], units[1])]
    try:
        found = [
            _terms_at(subject, batch, **dict(zip(pair, at, strict=True))) for at in grid
        ]
    except UserError:
        return
    for term in dict.fromkeys(chain(*found)):
        points = [terms.get(term, 0.0) for terms in found]
        neither, one, other, both = points
        factors = _vanishing([neither, one], points) or _vanishing(
            [neither, other], points
        )
        if not factors and not _vanishing([both - one - other + neither], points):
            raise Broken(
                f"{pair[0]} and {pair[1]} interact in the term {term!r}: it is "
                + ", ".join(
                    f"{x:.6g} at {at}" for x, at in zip(points, grid, strict=True)
                )
            )


def _constant(points: Sequence[float]) -> bool:
    """Whether these are one number, but for rounding."""
    return max(points) - min(points) <= SAME * max(map(abs, points))


def _straight(points: Sequence[float]) -> bool:
    """Whether three equally spaced points lie on a line, but for rounding."""
    a, b, c = points
    return abs((c - b) - (b - a)) <= ROUNDING * max(map(abs, points))


def _is_rest(points: Sequence[float], places: Sequence[float]) -> bool:
    """Whether a line through the first two is 0 at 1, and not at 0."""
    slope = (points[1] - points[0]) / (places[1] - places[0])
    at_none, at_one = (points[0] + slope * (x - places[0]) for x in (0.0, 1.0))
    return _vanishing([at_one], points) and not _vanishing([at_none], points)


def _vanishing(some: Sequence[float], all_: Sequence[float]) -> bool:
    """Whether these are next to nothing, compared with all."""
    return max(map(abs, some)) <= ROUNDING * max(map(abs, all_))
