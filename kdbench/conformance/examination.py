"""All checks of a target, one by one, and what comes out of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kdbench.admission import SINGULAR
from kdbench.api import unknown
from kdbench.conformance.checks import Check, Finding, carried_out, checks_of
from kdbench.conformance.targets import Target, Thing

ALL_KINDS = ("plugin", *SINGULAR.values())

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

    Where one does not apply because of what another finds, that one is carried out,
    too. Raises UserError, before any, for a check that there is not.
    """
    todo = chosen(target.things, only)
    total, done = sum(len(checks) for _, checks in todo), 0
    results = []
    for thing, checks in todo:
        findings: list[Finding] = []
        waiting = list(checks)
        while waiting:
            check = waiting.pop(0)
            tell(thing, check, done, max(total, done + 1))
            findings.append(carried_out(check, thing.subject))
            done += 1
            known = [*waiting, *(finding.check for finding in findings)]
            waiting += [x for x in _referred(findings[-1], thing) if x not in known]
        results.append(Result(thing, tuple(findings)))
    return Examination(target.title, tuple(results))


def _referred(finding: Finding, thing: Thing) -> list[Check]:
    """The check that says why this one does not apply, "see `NAME`"."""
    if finding.status != "does not apply":
        return []
    names = re.findall(r"see `([\w-]+)`", finding.said)
    return [check for check in checks_of(thing.kind) if check.name in names]


def chosen(
    things: Iterable[Thing], only: Iterable[str] = ()
) -> list[tuple[Thing, tuple[Check, ...]]]:
    """The checks of each thing; UserError for a name in `only` that no kind has."""
    everything = [(thing, checks_of(thing.kind)) for thing in things]
    names = {check.name for kind in ALL_KINDS for check in checks_of(kind)}
    there = {check.name for _, checks in everything for check in checks}
    wanted = set(only)
    for name in sorted(wanted - names):
        raise unknown("check", name, names)
    if wanted and not wanted & there:
        wanted |= {"loads"}  # perhaps that is why there is nothing else
    todo = [
        (thing, tuple(c for c in checks if not wanted or c.name in wanted))
        for thing, checks in everything
    ]
    return [(thing, checks) for thing, checks in todo if checks]
