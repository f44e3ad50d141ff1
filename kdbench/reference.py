"""results/README.md: which results are published, how they were made, what they say.

`make results` writes it, and the reports beside the records.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from kdbench.api import UserError
from kdbench.atomic import write_whole
from kdbench.config import read_suite
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.report.document import build
from kdbench.report.markdown import paragraph
from kdbench.report.provenance import recipe
from kdbench.report.sections import sections
from kdbench.reproducing.judging import BITS
from kdbench.store import Results, load

OPENING = Path(__file__).parent / "report" / "templates" / "reference.md"
"""What is said of all results: their files, their fields, how to remake them."""

TRAINED = """
Trained: the time of all processes that trained, summed, as shared in lockstep; in
brackets, by the same records, had each strategy paid for its data and its teacher's
passes alone. Tests on the way and start-up are in neither.
"""

FACTS = (*BITS, "cores", "python", "kdbench")


def page(folder: Path) -> str:
    """The page on all results in `folder`/reference.

    Raises UserError where there are none, or a record is damaged.
    """
    classes: dict[Path, dict[str, Results]] = {}
    for path in sorted((folder / "reference").glob("*/*")):
        if path.is_dir() and any(path.glob("*.json")):
            classes.setdefault(path.parent, {})[path.name] = _whole(path)
    if not classes:
        raise UserError(f"no results in {folder / 'reference'}")
    lines = [OPENING.read_text(encoding="utf-8")]
    for kind, suites in classes.items():
        lines += _class(kind, suites, folder)
    return "\n".join(lines).rstrip() + "\n"


def _class(kind: Path, suites: Mapping[str, Results], folder: Path) -> Iterator[str]:
    """What there is from one class of machines."""
    yield f"## {kind.name}\n"
    runs = [record for results in suites.values() for record in results.records]
    yield from (f"- {name}: {value}" for name, value in _facts(runs))
    yield ""
    yield "| suite | settings | strategies | seeds | runs | trained | to remake it |"
    yield "|---|---|---|---|---|---|---|"
    for name, results in suites.items():
        yield _row(kind / name, results, folder)
    yield TRAINED
    yield f"All settings on one page: {_links(kind / 'report', folder)}.\n"
    if len(suites) > 1:
        yield f"### {kind.name}: all together\n"
        yield from _findings(load([kind / name for name in suites]))
    for name, results in suites.items():
        yield f"### {kind.name}: {name}\n"
        trained = recipe(sections(results)) or "No student has been trained yet"
        yield f"{_title(name) or name}. {paragraph(trained)}.\n"
        yield from _findings(results)
        for part in build(results).parts:
            yield from (f"- {paragraph(text)}" for text in part.sentences)
        yield ""


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
    title = (
        f"{path.parent.name}: {path.name}".lower().replace(":", "").replace(" ", "-")
    )
    command = f"`kdbench run {path.name}{_data(students)}`"
    cells = (
        f"[{path.name}](#{title}): {_links(path / 'report', folder)}",
        ", ".join(settings),
        str(len(strategies)),
        str(len(seeds)),
        ", ".join(word for word in told if not word.startswith("0 ")),
        _trained(results),
        command if _title(path.name) else "no suite of this name is installed",
    )
    return f"| {' | '.join(cells)} |"


def _data(students: Sequence[Record]) -> str:
    """The option that names the data's folder, where they need one."""
    names = {record.run.dataset for record in students}
    return " --data-dir DATA" if any(_host().dataset(n).locate for n in names) else ""


def _trained(results: Results) -> str:
    """The processes' time, as shared in lockstep, and had each run been alone."""
    costs = [record.cost for record in results.records]
    shared = sum(cost.get("train_shared_s") or 0.0 for cost in costs)
    alone = sum(cost.get("train_s") or 0.0 for cost in costs)
    return f"{shared / 60:.0f} min ({alone / 60:.0f} min)"


def _links(report: Path, folder: Path) -> str:
    """Links to the formats of a report that are there."""
    names = ("report.html", "report.md", "report.pdf")
    there = [report / name for name in names if (report / name).is_file()]
    links = (f"[{p.name}]({p.relative_to(folder).as_posix()})" for p in there)
    return ", ".join(links) or "no report"


@cache
def _host() -> Host:
    return Host()


@cache
def _title(name: str) -> str:
    """The title of the suite of this name, "" where there is none."""
    files = {offer.thing.name: offer.thing.path for offer in _host().all("suites")}
    return read_suite(files[name]).title if name in files else ""


def _findings(results: Results) -> Iterator[str]:
    yield from (f"- {paragraph(text)}" for text in build(results).findings)
    yield ""


def lighten(folder: Path) -> None:
    """Give the PNGs in `folder` 256 colours at most: a third of the bytes.

    Those that have a palette stay as they are.
    """
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as picture:
            if picture.mode == "P":
                continue
            few = picture.convert("RGB").quantize(
                # keeps colours that only a colour bar has
                method=Image.Quantize.MAXCOVERAGE,
                kmeans=5,
                dither=Image.Dither.NONE,
            )
        few.save(path, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m kdbench.reference RESULTS")
    try:
        results = Path(sys.argv[1])
        write_whole(results / "README.md", page(results).encode())
        lighten(results / "reference")
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
