"""What a manuscript is made of. Texts are for printing and not yet escaped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple


class Span(NamedTuple):
    """A piece of text.

    `kind`: "text"; "hidden" takes room and shows nothing, so that numbers align; "cite"
    (in brackets) and "citet" (as part of the sentence) hold keys with commas between;
    "table" is the number of the table with this slug.
    """

    kind: Literal["text", "hidden", "cite", "citet", "table"]
    text: str


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """Level 1 is a section, 2 a subsection."""

    level: Literal[1, 2]
    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    spans: Spans
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A list of short paragraphs."""

    items: tuple[Spans, ...]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Slot:
    """A table's cell: `best` is set in bold, `near` has a dagger."""

    spans: Spans
    best: bool = False
    near: bool = False


@dataclass(frozen=True)
class GridColumn:
    """`heading` is one text for each line of it.

    `width` in em is that of text that wraps; None for as wide as it is.
    """

    heading: tuple[str, ...]
    right: bool
    width: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table that fits its page.

    `size` is the type's, in points; the first `opening` rows stand apart. `short`: it
    is not to be broken over pages.
    """

    slug: str
    title: str
    caption: Spans
    columns: tuple[GridColumn, ...]
    rows: tuple[tuple[Slot, ...], ...]
    notes: tuple[Spans, ...]
    size: int
    landscape: bool
    opening: int
    short: bool
    kind: ClassVar[str] = "grid"

    @property
    def head(self) -> tuple[tuple[str, ...], ...]:
        """The lines of the heading, each with a text for every column."""
        height = max(len(column.heading) for column in self.columns)
        lines = [("",) * (height - len(c.heading)) + c.heading for c in self.columns]
        return tuple(zip(*lines, strict=True))


@dataclass(frozen=True)
class Picture:
    """A figure: `pdf` is drawn, `width` in points is what it takes on the page."""

    stem: str
    title: str
    caption: Spans
    alt: str
    width: float
    pdf: bytes = field(repr=False)
    kind: ClassVar[str] = "picture"


Block = Heading | Paragraph | Bullets | Grid | Picture


def text(words: str) -> Spans:
    """Spans of plain text."""
    return (Span("text", words),) if words else ()
