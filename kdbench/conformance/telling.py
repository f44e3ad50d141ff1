"""What came out of the checks, for a terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from kdbench.conformance.checks import Check, Finding
from kdbench.conformance.examination import Examination, Tell
from kdbench.conformance.targets import Thing

COUNTED = ("failed", "passed", "does not apply")
STYLES = {"failed": "bold red", "passed": "green", "does not apply": "dim"}
WORDS = {"does not apply": "not applicable"}


@contextmanager
def progress(console: Console) -> Iterator[Tell]:
    """A bar while the checks run, only on a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("")

        def tell(thing: Thing, check: Check, done: int, total: int) -> None:
            said = f"{thing.kind} {thing.name}: {check.name}"
            bar.update(task, completed=done, total=total, description=said)

        yield tell


def print_examination(examination: Examination, console: Console) -> None:
    """A line for each thing; failures in full; what did not apply, and why."""
    _say(console, examination.title, "bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for result in examination.results:
        table.add_row(
            Text("FAILED" if result.failures else "ok", _style(bool(result.failures))),
            Text(result.thing.kind),
            Text(result.thing.name, overflow="fold"),
            _counts(result.findings),
            Text(f"{sum(f.seconds for f in result.findings):.1f} s", justify="right"),
        )
    console.print(table)
    for result in examination.results:
        for finding in result.failures:
            _say(console, f"\n{result.thing.kind} {result.thing.name}", "bold red")
            _say(console, str(finding))
    _print_inapplicable(examination, console)
    _say(console, f"\n{summary(examination)}", _style(examination.failed))


def _print_inapplicable(examination: Examination, console: Console) -> None:
    lines = []
    for result in examination.results:
        reasons: dict[str, list[str]] = {}
        for finding in result.findings:
            if finding.status == "does not apply":
                reasons.setdefault(finding.said, []).append(finding.check.name)
        lines += [
            f"{result.thing.name}: {', '.join(checks)}: {why}"
            for why, checks in reasons.items()
        ]
    if lines:
        _say(console, "\nnot applicable:", "dim")
    for line in lines:
        _say(console, f"  {line}", "dim")


def summary(examination: Examination) -> str:
    """How many checks failed, in one line."""
    findings = [f for result in examination.results for f in result.findings]
    failed = sum(finding.failed for finding in findings)
    what = f"{len(findings)} checks in {sum(f.seconds for f in findings):.0f} s"
    return f"{failed} failed of {what}" if failed else f"none failed of {what}"


def as_data(examination: Examination) -> dict[str, Any]:
    """Everything, for `--json`."""
    return {
        "target": examination.title,
        "failed": examination.failed,
        "things": [
            {
                "kind": result.thing.kind,
                "name": result.thing.name,
                "findings": [_finding(finding) for finding in result.findings],
            }
            for result in examination.results
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check.name,
        "status": finding.status,
        "said": finding.said,
        "seconds": round(finding.seconds, 3),
        **_explained(finding.check),
    }


def _explained(check: Check) -> dict[str, str]:
    return {"what": check.what, "why": check.why, "fix": check.fix}


def print_checks(checks: Sequence[Check], console: Console) -> None:
    """What each check asks for, and why."""
    for kind in dict.fromkeys(check.kind for check in checks):
        _say(console, f"{kind}:", "bold")
        for check in checks:
            if check.kind == kind:
                _say(console, f"  {check.name}")
                _say(console, f"    expected: {check.what}", "dim")
                _say(console, f"    why: {check.why}", "dim")


def checks_as_data(checks: Sequence[Check]) -> list[dict[str, str]]:
    return [{"check": c.name, "kind": c.kind, **_explained(c)} for c in checks]


def _counts(findings: Sequence[Finding]) -> Text:
    found = Counter[str](finding.status for finding in findings)
    parts = [
        Text(f"{found[status]} {WORDS.get(status, status)}", STYLES[status])
        for status in COUNTED
        if found[status]
    ]
    return Text(", ").join(parts)


def _style(failed: bool) -> str:
    return STYLES["failed" if failed else "passed"]


def _say(console: Console, text: str, style: str = "") -> None:
    whole = not console.is_terminal  # a file's reader breaks lines, or searches them
    console.print(Text(text, style), soft_wrap=whole)
