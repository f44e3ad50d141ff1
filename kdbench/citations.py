"""From "Heo et al. 2019, AAAI, arXiv:1811.03233" to an entry of a bibliography.

A plugin ships a `references.bib` in its package; what that does not hold is made from
the text, as far as it goes.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bibtexparser.model import Entry

FILE = "references.bib"

KEPT = (
    *("author", "editor", "title", "booktitle", "journal", "series", "volume"),
    *("number", "pages", "year", "publisher", "organization", "institution", "school"),
    *("address", "edition", "chapter", "type", "howpublished", "note", "doi", "url"),
    *("eprint", "archiveprefix", "primaryclass"),
)
"""Fields that an entry keeps: no abstracts, and no file names of somebody's machine."""

VENUES = ("booktitle", "journal", "howpublished")
"""Where it was published, by the first of these that an entry has."""

ARXIV = re.compile(
    r"\barxiv(?:\.org/(?:abs|pdf)/|[.:\s]\s*)"
    r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v\d+)?(?!\d)",
    re.IGNORECASE,
)
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\.?\d)")
OTHERS = re.compile(r"\bet al\b\.?|\band others\b")
ESCAPED = str.maketrans(
    {special: f"\\{special}" for special in "&%#$_"}
    | {"\\": r"{\textbackslash}", "~": r"{\textasciitilde}", "^": r"{\textasciicircum}"}
    | {"<": r"{\textless}", ">": r"{\textgreater}", "|": r"{\textbar}"}
    | {"{": "", "}": ""}  # BibTeX counts escaped braces, too
)
INITIALS = re.compile(r"(?:[^\W\d_]\.[\s-]*)+")
MARKUP = re.compile(r"[\\{}$%~]|--|``|''")


@dataclass(frozen=True)
class Reference:
    """One entry: as BibTeX, and what it says as plain text ("" where it says nothing).

    The last of the `authors` is "others" where not all are named; `surname` is the
    first one's, without "von". `eprint` is an arXiv number without its version.
    """

    key: str
    bibtex: str
    authors: tuple[str, ...]
    surname: str
    year: str
    title: str
    venue: str
    eprint: str

    def __str__(self) -> str:
        """Authors, title, venue, year and arXiv number in one line."""
        *names, last = self.authors or ("",)
        who = ", ".join(names)
        if last == "others":
            who += " et al."
        else:
            who += f" and {last}" if names else last
        number = f"arXiv:{self.eprint}" if self.eprint else ""
        where = ", ".join(filter(None, (self.venue, self.year)))
        parts = (who, self.title, where, "" if number in self.venue else number)
        return " ".join(p if p[-1] in ".?!" else f"{p}." for p in parts if p)


def read(bibtex: str) -> tuple[Reference, ...]:
    """The entries of a BibTeX text; those that are no BibTeX are left out.

    Each stands on its own: what `@string` abbreviates is written out.
    """
    from bibtexparser.entrypoint import parse_string

    return tuple(map(_reference, parse_string(bibtex).entries))


def shipped(module: str) -> tuple[Reference, ...]:
    """The entries of the nearest `references.bib` in the packages around a module."""
    while module:
        found = _of_package(module)
        if found is not None:
            return found
        module = module.rpartition(".")[0]
    return ()


@cache
def _of_package(name: str) -> tuple[Reference, ...] | None:
    """What its `references.bib` holds; None where it has none or is no package."""
    if not hasattr(sys.modules.get(name), "__path__"):
        return None
    try:
        return read((resources.files(name) / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # cannot be read, or is not UTF-8
        return ()


def cited(paper: str, known: Sequence[Reference]) -> tuple[Reference, ...]:
    """The papers that a text names, parted by ";": of those known, or made from it.

    A known one has the same arXiv number, or else first author and year, and venue
    where several have these. A part without a number, or an author and year, names no
    paper.
    """
    parts = (" ".join(part.split()) for part in paper.split(";"))
    named = [part for part in parts if _number(part) or all(_split(part)[:2])]
    return tuple(dict.fromkeys(_known(part, known) or _made(part) for part in named))


def _known(part: str, known: Sequence[Reference]) -> Reference | None:
    """The one entry that the text must mean, or None."""
    number = _number(part)
    for one in known:
        if number and one.eprint == number:
            return one
    names, year, behind = _split(part)
    first = f" {_surname(names)}"
    fits = [
        one
        for one in known
        if one.surname
        and first.endswith(f" {_folded(one.surname)}")
        and one.year == year
        and not (number and one.eprint)  # it has another number
    ]
    if len(fits) > 1:
        words = [_folded(word) for word in behind.split(",") if word.strip()]
        fits = [o for o in fits if any(word in _folded(o.venue) for word in words)]
    return fits[0] if len(fits) == 1 else None


def _made(part: str) -> Reference:
    """An entry of what the text says, with the text as its title and in its key.

    Without a title neither a bibliography of LaTeX nor one of Typst would print more
    than the names.
    """
    names, year, _ = _split(part)
    number = _number(part)
    first = re.sub(r"[^a-z]", "", _surname(names)) or "paper"
    key = f"{first}{year}-{hashlib.sha256(part.encode()).hexdigest()[:6]}"
    fields = {
        "author": " and ".join(names) if all(map(_is_name, names)) else "",
        "title": part,
        "year": year,
        "eprint": number,
        "archivePrefix": "arXiv" if number else "",
    }
    said = {name: _latex(text) for name, text in fields.items() if text}
    said["title"] = f"{{{said['title']}}}"  # styles leave its capitals alone
    rows = [f"{name} = {{{text}}}" for name, text in said.items()]
    [entry] = read(f"@misc{{{key}, {', '.join(rows)}}}")
    return entry


def _split(part: str) -> tuple[list[str], str, str]:
    """Authors as far as given, year, and what stands behind it."""
    plain = ARXIV.sub("", part)
    year = YEAR.search(plain)
    before = plain[: year.start()] if year else plain
    behind = plain[year.end() :] if year else ""
    others = OTHERS.search(before)
    names: list[str] = []
    for text in re.split(
        r",|&|\band\b", before[: others.start()] if others else before
    ):
        name = text.strip(" ([:")
        if names and INITIALS.fullmatch(name):  # "Hinton, G."
            names[-1] += f", {name}"
        elif name:
            names.append(name)
    if names and others:
        names.append("others")
    return names, year.group() if year else "", behind.strip(" ,.:)]")


def _is_name(text: str) -> bool:
    """Whether it may be somebody's name: few words, the last one no common one."""
    words = text.split()
    return text == "others" or (len(words) <= 4 and not words[-1][0].islower())


def _surname(names: list[str]) -> str:
    """The first author's, in lower case."""
    return _folded(names[0].partition(",")[0]) if names else ""


def _number(text: str) -> str:
    found = ARXIV.search(text)
    return found.group(1).lower() if found else ""


def _folded(text: str) -> str:
    """Lower case without accents, to compare names by."""
    apart = unicodedata.normalize("NFKD", text.strip())
    return "".join(c for c in apart if not unicodedata.combining(c)).casefold()


def _latex(text: str) -> str:
    """Plain text for an entry."""
    return text.translate(ESCAPED)


def _plain(latex: str) -> str:
    """What is printed for it, in one line."""
    if MARKUP.search(latex):
        latex = _decoder().latex_to_text(latex)
    return " ".join(latex.split())


@cache
def _decoder() -> Any:
    from pylatexenc.latex2text import LatexNodes2Text  # type: ignore[import-untyped]

    return LatexNodes2Text(math_mode="verbatim")


def _reference(entry: Entry) -> Reference:
    from bibtexparser.entrypoint import write_string
    from bibtexparser.library import Library
    from bibtexparser.middlewares import names

    entry.fields = [
        field
        for field in entry.fields
        if field.key.lower() in KEPT
        and field.enclosing != "no-enclosing"  # an abbreviation that nothing explains
    ]
    said = {field.key.lower(): str(field.value) for field in entry.fields}
    people = [
        names.parse_single_name_into_parts(name, strict=False)
        for name in names.split_multiple_persons_names(said.get("author", ""))
    ]
    surnames = [_plain(" ".join(person.last)) for person in people]
    plain = {key: _plain(text) for key, text in said.items()}
    venues = [plain[key] for key in VENUES if key in plain]
    own = [f"arXiv:{plain['eprint']}"] if "eprint" in plain else []
    elsewhere = [plain[key] for key in (*VENUES, "note", "doi", "url") if key in plain]
    return Reference(
        key=entry.key,
        bibtex=write_string(Library([entry])).strip(),
        authors=tuple(_plain(person.merge_first_name_first) for person in people),
        surname=surnames[0] if surnames else "",
        year=plain.get("year", ""),
        title=plain.get("title", ""),
        venue=venues[0] if venues else "",
        eprint=_number(" ".join(own + elsewhere)),
    )
