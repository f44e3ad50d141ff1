"""Where the numbers come from: protocol, recipes, code, machines, files left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from kdbench.records import Record
from kdbench.report import formats
from kdbench.report.sections import Section
from kdbench.report.tables import Cell, Column, Row, Table, word
from kdbench.store import Results

Facts = tuple[tuple[str, str], ...]


def facts(results: Results, sections: list[Section]) -> Facts:
    """Name and value of what holds for the whole report."""
    runs = [record.run for record in results.records]
    statuses = Counter(record.status for record in results.records)
    times = sorted(record.finished_at for record in results.records)
    ends = dict.fromkeys(map(_minute, (*times[:1], *times[-1:])))
    seeds = sorted({seed for section in sections for seed in section.seeds})
    return (
        ("Protocol version", ", ".join(sorted({run.protocol for run in runs}))),
        ("Engine version", ", ".join(sorted({str(run.engine) for run in runs}))),
        ("Recipe", recipe(sections) or formats.MISSING),
        ("Seeds", ", ".join(str(seed) for seed in seeds) or formats.MISSING),
        ("Runs", ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))),
        ("Finished between", " and ".join(ends) or formats.MISSING),
        ("Superseded records left out", str(results.superseded)),
        ("Damaged files left out", str(len(results.damaged))),
        ("Records without a checksum", str(results.unsealed)),
    )


def recipe(sections: list[Section]) -> str:
    """How the students were trained; of several recipes each with its settings."""
    settings: dict[str, list[str]] = {}
    for section in sections:
        settings.setdefault(section.recipe.sentence(), []).append(section.title)
    if len(settings) == 1:
        return next(iter(settings))
    return "; ".join(f"{', '.join(of)}: {words}" for words, of in settings.items())


def _minute(time: str) -> str:
    """A time of a record in UTC, without seconds; as it is if it names no zone."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return time
    if found.tzinfo is None:
        return time
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def plugin_name(plugin: Mapping[str, str]) -> str:
    """Distribution and version of a plugin."""
    name = plugin.get("distribution") or plugin.get("name") or ""
    words = [name, plugin.get("version") or ""]
    return " ".join(w for w in words if w) or " ".join(plugin.values()) or "unknown"


def tables(results: Results) -> list[Table]:
    """Strategies with their code, shared code, environments, damaged files."""
    found = [
        _strategies(results.records),
        _other_code(results.records),
        _environments(results.records),
    ]
    if results.damaged:
        found.append(_damaged(results))
    return found


def _strategies(records: list[Record]) -> Table:
    rows = dict.fromkeys(
        (r.run.label, r.family, plugin_name(r.plugin), r.run.code.get("strategy", ""))
        for r in sorted(records, key=lambda r: r.run.label)
    )
    return _words_table(
        "strategies",
        "Strategies and their code",
        "The plugin that each strategy came from, and the hash of its source.",
        ("Strategy", "Family", "Plugin", "Code"),
        list(rows),
    )


def _other_code(records: list[Record]) -> Table:
    entries = {e for record in records for e in record.run.code.items()}
    return _words_table(
        "code",
        "Code of models and datasets",
        "The hash of the source of each; one that stands twice was changed in between.",
        ("Name", "Code"),
        sorted(entry for entry in entries if entry[0] != "strategy"),
    )


def _environments(records: list[Record]) -> Table:
    many: Counter[str] = Counter()
    for record in records:
        if record.status == "skipped":
            continue
        items = sorted(record.environment.items())
        many["; ".join(f"{k} {v}" for k, v in items if v is not None)] += 1
    return _words_table(
        "environments",
        "Environments",
        "Machines and versions that the runs were made with, skipped ones left out.",
        ("Runs", "Environment"),
        [(str(n), text) for text, n in many.most_common()],
    )


def _damaged(results: Results) -> Table:
    return _words_table(
        "damaged",
        "Damaged files",
        "Files in the results folders that could not be read and were left out.",
        ("File", "Reason"),
        [(str(path), reason) for path, reason in results.damaged],
    )


def _words_table(
    key: str,
    title: str,
    caption: str,
    headings: tuple[str, ...],
    rows: list[tuple[str, ...]],
) -> Table:
    columns = tuple(Column(h.lower(), h, numeric=False) for h in headings)
    cells = tuple(Row(tuple(word(text) for text in row)) for row in rows)
    return Table(key, title, caption, columns, cells)


def facts_table(found: Facts) -> Table:
    """The facts as a table, for data files."""
    rows = [Row((Cell(name, name), word(value))) for name, value in found]
    columns = (
        Column("fact", "Fact", numeric=False),
        Column("value", "Value", numeric=False),
    )
    return Table(
        "facts", "Provenance", "What all of it rests on.", columns, tuple(rows)
    )
