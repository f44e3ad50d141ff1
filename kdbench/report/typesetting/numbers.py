"""Numbers of a column, padded so that their points stand below each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from kdbench.report.formats import MISSING
from kdbench.report.typesetting.blocks import Span, Spans, text
from kdbench.report.typesetting.prose import DASH, MINUS, SPACE, TIMES, name

NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)")
PREFIXES = {"", "+", "-", "<", ">", "~"}


def aligned(texts: Sequence[str]) -> list[Spans]:
    """Numbers padded on both sides with hidden characters, points below each other.

    Set flush right. Every number of a text has its own place: "95.0 ± 6.2" aligns at
    both points. A text that is no number stays as it is.
    """
    split = [_numbers(words) for words in texts]
    known = [parts for parts in split if parts]
    places = list(zip_longest(*known, fillvalue=""))
    room = [
        _Room.number(column) if place % 2 else _Room.between(column)
        for place, column in enumerate(places)
    ]
    return [
        _align(parts, room) if parts else text(_plain(words))
        for words, parts in zip(texts, split, strict=True)
    ]


def _plain(words: str) -> str:
    return DASH if words == MISSING else name(words)


def _numbers(words: str) -> list[str]:
    """What stands before, between and behind numbers, and the numbers; [] if none."""
    parts = NUMBER.split(words)
    longest = max((len(part) for part in parts[2::2]), default=0)
    if len(parts) == 1 or parts[0] not in PREFIXES or longest > len(" n.s. "):
        return []
    return parts


class _Room:
    """The most that stands at one place: before a point, behind it, or between."""

    def __init__(self, whole: str, part: str, other: str) -> None:
        self.whole, self.part, self.other = whole, part, other

    @classmethod
    def number(cls, found: Sequence[str]) -> _Room:
        pairs = [number.partition(".") for number in found]
        whole = max((p[0] for p in pairs), key=len)
        part = max((p[1] + p[2] for p in pairs), key=len)
        return cls(whole, part, "")

    @classmethod
    def between(cls, found: Sequence[str]) -> _Room:
        return cls("", "", max(found, key=len))


def _align(parts: Sequence[str], room: Sequence[_Room]) -> Spans:
    spans: list[Span] = []
    for place, most in enumerate(room):
        own = parts[place] if place < len(parts) else ""
        if place % 2:
            whole, point, part = own.partition(".")
            missing = _digits(most.whole[len(whole) :]) if place > 1 else ""
            before = spans.pop() if missing and _opens(spans) else None
            after = _digits(most.part[len(point + part) :])
            spans += [Span("hidden", missing), *([before] if before else [])]
            spans += [Span("text", own), Span("hidden", after)]
        else:
            after = _signs(most.other[len(own) :]) if place else ""
            spans += [Span("text", _signs(own)), Span("hidden", after)]
        spans = [span for span in spans if span.text]
    return _merged(spans)


def _opens(spans: Sequence[Span]) -> bool:
    """Whether a bracket opens just before: the room goes before it."""
    return bool(spans) and spans[-1].kind == "text" and spans[-1].text.endswith("(")


def _digits(words: str) -> str:
    return re.sub(r"\d", "0", words)


def _signs(words: str) -> str:
    if words == " - ":
        return f"{SPACE}{DASH}{SPACE}"
    words = re.sub(r"^x\b", TIMES, words.replace("-", MINUS))
    return words.replace(" ", SPACE)


def _merged(spans: Sequence[Span]) -> Spans:
    """Neighbours of a kind as one."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].kind == span.kind:
            span = Span(span.kind, found.pop().text + span.text)
        found.append(span)
    return tuple(found)
