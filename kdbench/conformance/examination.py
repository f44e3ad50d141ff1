"""All checks of a target, one by one, and what comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kdbench.api import unknown
from kdbench.conformance.checks import Check, Finding, carried_out, checks_of
from kdbench.conformance.targets import Target, Thing

Tell = Callable[[Thing, Check, int, int], None]
"""Told before each check: of what, which, and how many of all are done."""


@dataclass(frozen=True)
class Result:
    """One thing, and what became of each of its checks."""

    thing: Thing
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.failed)


@dataclass(frozen=True)
class Examination:
    """What became of a target; things that no check is for are left out."""

    title: str
    results: tuple[Result, ...]

    @property
    def failed(self) -> bool:
        return any(result.failures for result in self.results)


def examine(
    target: Target,
    only: Iterable[str] = (),
    tell: Tell = lambda *_: None,
) -> Examination:
    """Carry out the checks of everything in the target, or `only` those named.

    Raises UserError, before any, for a check that none of its things has.
    """
    todo = chosen(target.things, only)
    total, done = sum(len(checks) for _, checks in todo), 0
    results = []
    for thing, checks in todo:
        findings = []
        for check in checks:
            tell(thing, check, done, total)
            findings.append(carried_out(check, thing.subject))
            done += 1
        results.append(Result(thing, tuple(findings)))
    return Examination(target.title, tuple(results))


def chosen(
    things: Iterable[Thing], only: Iterable[str] = ()
) -> list[tuple[Thing, tuple[Check, ...]]]:
    """The checks of each thing; UserError for a name in `only` that none has."""
    everything = [(thing, checks_of(thing.kind)) for thing in things]
    names = {check.name for _, checks in everything for check in checks}
    wanted = set(only)
    for name in sorted(wanted - names):
        kinds = ", ".join(sorted({thing.kind for thing, _ in everything}))
        raise unknown("check", name, names, f"those of a {kinds}")
    todo = [
        (thing, tuple(c for c in checks if not wanted or c.name in wanted))
        for thing, checks in everything
    ]
    return [(thing, checks) for thing, checks in todo if checks]
