"""results/README.md: which results are published, how they were made, what they say.

`python -m kdbench.reference results` prints it; `make results` writes it, and the
reports beside the records.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdbench.api import UserError
from kdbench.config import read_suite
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.report.document import build
from kdbench.report.markdown import paragraph
from kdbench.store import Results, load

OPENING = Path(__file__).parent / "report" / "templates" / "reference.md"
"""What is said of all results: their files, their fields, how to remake them."""

FACTS = ("cpu", "gpu", "cores", "torch", "python", "kdbench")


def page(folder: Path) -> str:
    """The page on all results in `folder`/reference.

    Raises UserError where there are none, or a record is damaged.
    """
    classes = sorted(p for p in (folder / "reference").glob("*") if p.is_dir())
    if not classes:
        raise UserError(f"no results in {folder / 'reference'}")
    lines = [OPENING.read_text(encoding="utf-8")]
    for kind in classes:
        lines += _class(kind, folder)
    return "\n".join(lines).rstrip() + "\n"


def _class(kind: Path, folder: Path) -> Iterator[str]:
    """What there is from one class of machines."""
    suites = {path: _whole(path) for path in sorted(kind.glob("*")) if _holds(path)}
    yield f"## {kind.name}\n"
    runs = [record for results in suites.values() for record in results.records]
    yield from (f"- {name}: {value}" for name, value in _facts(runs))
    yield ""
    yield "| suite | settings | strategies | seeds | runs | trained in | to remake it |"
    yield "|---|---|---|---|---|---|---|"
    for path, results in suites.items():
        yield _row(path, results, folder)
    yield ""
    if len(suites) > 1:
        yield "### All of them together\n"
        together = load(list(suites))
        report = kind / "report" / "report.md"
        if report.is_file():
            yield f"{_links(report.parent, folder)}.\n"
        yield from _findings(together)
    for path, results in suites.items():
        yield f"### {path.name}\n"
        yield f"{_title(path.name)}. {_recipe(results)}.\n"
        yield from _findings(results)
        for part in build(results).parts:
            yield from (f"- {paragraph(text)}" for text in part.sentences)
        yield ""


def _holds(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.json"))


def _whole(path: Path) -> Results:
    results = load([path])
    if results.damaged:
        file, reason = results.damaged[0]
        raise UserError(f"{file}: {reason}")
    return results


def _facts(runs: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """The machines and versions that the runs name."""
    for name in FACTS:
        known = {str(r.environment[name]) for r in runs if r.environment.get(name)}
        if known:
            yield name, ", ".join(sorted(known))
    days = sorted(record.finished_at[:10] for record in runs)
    yield "trained", " to ".join(dict.fromkeys((days[0], days[-1])))


def _row(path: Path, results: Results, folder: Path) -> str:
    students = [record for record in results.records if not record.run.is_teacher]
    status = Counter(record.status for record in students)
    told = [f"{status[word]} {word}" for word in ("finished", "failed", "skipped")]
    settings = sorted({f"{r.run.dataset} / {r.run.pair}" for r in students})
    strategies = {record.run.label for record in students}
    seeds = {record.run.seed for record in students}
    cells = (
        f"[{path.name}](#{path.name}): {_links(path / 'report', folder)}",
        ", ".join(settings),
        str(len(strategies)),
        str(len(seeds)),
        ", ".join(word for word in told if not word.startswith("0 ")),
        _hours(results),
        f"`kdbench run {path.name}{_data(students)}`",
    )
    return f"| {' | '.join(cells)} |"


def _data(students: Sequence[Record]) -> str:
    embedded = {record.run.dataset for record in students} <= {"digits", "diabetes"}
    return "" if embedded else " --data-dir DATA"


def _hours(results: Results) -> str:
    """The processes' time, as shared in lockstep, and had each run been alone."""
    shared = sum(record.cost.get("train_shared_s") or 0.0 for record in results.records)
    alone = sum(record.cost.get("train_s") or 0.0 for record in results.records)
    return f"{shared / 3600:.1f} h (each alone: {alone / 3600:.1f} h)"


def _links(report: Path, folder: Path) -> str:
    """Links to the formats of a report that are there."""
    names = ("report.html", "report.md", "report.pdf")
    there = [report / name for name in names if (report / name).is_file()]
    links = (f"[{p.name}]({p.relative_to(folder).as_posix()})" for p in there)
    return ", ".join(links) or "no report"


def _title(name: str) -> str:
    """The title of the suite of this name, where there is one."""
    files = {offer.thing.name: offer.thing.path for offer in Host().all("suites")}
    return read_suite(files[name]).title if name in files else name


def _recipe(results: Results) -> str:
    """How the students were trained, one sentence for each recipe."""
    students = [record.run for record in results.records if not record.run.is_teacher]
    return ". ".join(dict.fromkeys(run.table_recipe.sentence() for run in students))


def _findings(results: Results) -> Iterator[str]:
    yield from (f"- {paragraph(text)}" for text in build(results).findings)
    yield ""


if __name__ == "__main__":
    try:
        sys.stdout.write(page(Path(sys.argv[1])))
    except UserError as error:
        sys.exit(f"error: {error}")
