"""Numbers of a column, padded so that their points stand below each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from kdbench.report.formats import MISSING
from kdbench.report.typesetting.blocks import Span, Spans, text
from kdbench.report.typesetting.prose import DASH, MINUS, SPACE, TIMES, name

NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?)")
PREFIXES = {"", "+", "-", "<", ">", "~"}
RANGES = (" - ", " to ")
"""Between two numbers that stay together: no room opens within."""
OPENING = re.compile(r"(?: ?[(+<>~-]+)?$")
"""What belongs to the number behind it."""


def aligned(texts: Sequence[str]) -> list[Spans]:
    """Numbers padded on both sides with hidden characters, points below each other.

    Set flush right. Every number of a text has its own place: "95.0 ± 6.2" aligns at
    both points. No padding parts a number from its sign or its unit. A range is not
    padded, and a text that is no number stays as it is.
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
    if words == MISSING:
        return DASH
    parts = NUMBER.split(words)
    return "".join(map(_signs, parts)) if _range(parts) else name(words)


def _numbers(words: str) -> list[str]:
    """What stands before, between and behind numbers, and the numbers; [] if none."""
    parts = NUMBER.split(words)
    longest = max((len(part) for part in parts[2::2]), default=0)
    if parts[0] not in PREFIXES or longest > len(" n.s. ") or _range(parts):
        return []
    return parts if len(parts) > 1 else []


def _range(parts: Sequence[str]) -> bool:
    return any(part.startswith(RANGES) for part in parts[2:-1:2])


class _Room:
    """The most that stands at one place: before a point, behind it, or between."""

    def __init__(self, whole: str, part: str, other: str) -> None:
        self.whole, self.part, self.other = whole, part, other

    @classmethod
    def number(cls, found: Sequence[str]) -> _Room:
        cuts = [(number, _whole(number)) for number in found]
        whole = max((number[:cut] for number, cut in cuts), key=len)
        part = max((number[cut:] for number, cut in cuts), key=len)
        return cls(whole, part, "")

    @classmethod
    def between(cls, found: Sequence[str]) -> _Room:
        return cls("", "", max(found, key=len))


def _align(parts: Sequence[str], room: Sequence[_Room]) -> Spans:
    spans = [Span("text", _signs(parts[0]))]
    for place in range(1, len(room), 2):
        number, behind = (*parts[place : place + 2], "", "")[:2]
        decimals = _digits(room[place].part[len(number) - _whole(number) :])
        rest = _signs(room[place + 1].other[len(behind) :])
        spans.append(Span("text", _signs(number)))
        if place + 2 < len(parts):
            opening = _opening(behind)
            between = behind.removesuffix(opening)
            digits = _missing(parts[place + 2], room[place + 2])
            spans += [Span("hidden", decimals), Span("text", _signs(between))]
            spans += [Span("hidden", rest + digits), Span("text", _signs(opening))]
        else:
            digits = _missing("", room[place + 2]) if place + 2 < len(room) else ""
            spans += [Span("text", _signs(behind))]
            spans += [Span("hidden", decimals + rest + digits)]
    return _merged([span for span in spans if span.text])


def _missing(number: str, room: _Room) -> str:
    """The digits that a number lacks before its point."""
    return _digits(room.whole[_whole(number) :])


def _whole(number: str) -> int:
    """How many characters stand before its point or its exponent."""
    return len(re.split("[.e]", number, maxsplit=1)[0])


def _opening(words: str) -> str:
    """The end of what stands between two numbers that belongs to the second."""
    found = OPENING.search(words)
    return found[0] if found else ""


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
