"""The works cited: BibTeX entries read, cleaned, and written again.

Entries come with the strategies, so they are read as data: what LaTeX would obey is
taken out, and what is left is escaped anew for each format.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kdbench.report.typesetting.prose import DASH, clean

METHODS = Path(__file__).parent.parent / "templates" / "methods.bib"
"""The works that the statistics rest on."""

KINDS = re.compile(
    "article|book|booklet|inbook|incollection|inproceedings|conference|manual|misc|"
    "mastersthesis|phdthesis|proceedings|techreport|unpublished|online"
)
FIELDS = re.compile(
    "author|editor|title|journal|booktitle|year|volume|number|pages|publisher|school|"
    "institution|series|edition|address|month|note|howpublished|doi|url|eprint|"
    "archiveprefix|primaryclass"
)
ADDRESSES = {"doi", "url", "eprint"}


@dataclass(frozen=True)
class Entry:
    """A work: fields as plain text, in which braces keep capitals."""

    kind: str
    key: str
    fields: Mapping[str, str]

    @property
    def work(self) -> tuple[str, str]:
        """What two entries of one work agree in."""
        title = re.sub(r"\W", "", self.fields["title"]).lower()
        return title, self.fields.get("year", "")

    @property
    def short(self) -> str:
        """Authors and year, about as a citation prints them."""
        people = self.fields.get("author", self.fields["title"]).split(" and ")
        names = [re.sub(r"[{}]", "", p.partition(",")[0]).strip() for p in people]
        first = names[0] if "," in people[0] else names[0].split(" ")[-1]
        others = {1: "", 2: " and Another"}.get(len(names), " et al.")
        return f"{first}{others} ({self.fields.get('year', 'n.d.')})"


@dataclass
class References:
    """The works that a report cites, by key, in the order in which they came."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, text: str) -> list[str]:
        """Take in the entries of a text and return their keys.

        An entry that cannot be read is left out. One of a work that is known by its key
        is the same; another work under a known key gets a key of its own.
        """
        found = []
        for entry in parse(text):
            key, number = entry.key, 1
            while key in self.entries and self.entries[key].work != entry.work:
                number += 1
                key = f"{entry.key}-{number}"
            self.entries.setdefault(key, Entry(entry.kind, key, entry.fields))
            found.append(key)
        return found


@cache
def methods() -> dict[str, Entry]:
    """The works on methods, by key."""
    return {entry.key: entry for entry in parse(METHODS.read_text(encoding="utf-8"))}


def parse(text: str) -> Iterator[Entry]:
    """The entries of a BibTeX text that have a key and a title, as plain text.

    What cannot be read is passed over, and so are fields that are not in `FIELDS`.
    """
    from bibtexparser.entrypoint import parse_string

    for found in parse_string(text).entries:
        kind = found.entry_type.lower()
        fields = {
            own: value
            for field in found.fields
            if FIELDS.fullmatch(own := field.key.lower())
            and field.enclosing != "no-enclosing"  # an abbreviation nobody explains
            and (value := _value(own, str(field.value)))
        }
        decomposed = unicodedata.normalize("NFKD", found.key)
        key = re.sub(r"[^A-Za-z0-9:_+-]", "", decomposed)
        if key and "title" in fields:
            yield Entry(kind if KINDS.fullmatch(kind) else "misc", key, fields)


def _value(name: str, latex: str) -> str:
    if name in ADDRESSES:
        address = re.sub(r"\\([_%&#])", r"\1", latex).strip("{} ")
        return address if re.fullmatch(r"[\w./:;()?=+,@-]+", address, re.ASCII) else ""
    text = _balanced(clean(_decoder().latex_to_text(latex)))
    return text.replace(DASH, "--") if name == "pages" else text


@cache
def _decoder() -> Any:
    """Braces around words stay: they keep capitals as they are."""
    from pylatexenc.latex2text import LatexNodes2Text  # type: ignore[import-untyped]

    return LatexNodes2Text(
        math_mode="text", keep_braced_groups=True, keep_braced_groups_minlen=2
    )


def _balanced(text: str) -> str:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            break
    return text if depth == 0 else re.sub(r"[{}]", "", text)


def bibtex(entries: Iterable[Entry], escape: Callable[[str], str]) -> str:
    """The entries as a .bib file. `escape` leaves braces as they are."""
    return "\n".join(_written(entry, escape) for entry in entries)


def _written(entry: Entry, escape: Callable[[str], str]) -> str:
    fields = dict(entry.fields)
    eprint = fields.pop("eprint", "")
    for name in ("archiveprefix", "primaryclass"):
        fields.pop(name, None)
    if eprint and eprint not in " ".join(fields.values()):
        fields.setdefault("url", f"https://arxiv.org/abs/{eprint}")
    lines = [f"@{entry.kind}{{{entry.key},"]
    for name, value in fields.items():
        text = value if name in ADDRESSES else escape(value)
        lines.append(f"  {name} = {{{text}}},")
    return "\n".join([*lines, "}", ""])
