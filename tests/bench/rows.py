"""The table of a benchmark run: a row for each bar, and whether it was reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pairs import Pairs, Spent


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table, and of the JSON file.

    `value` is held against `bar` and `aim`: a ratio of the two sides, or a share. The
    sides are in `unit`.
    """

    name: str
    value: float
    bar: float
    aim: float | None = None
    kind: Literal["times", "share", "amount"] = "times"
    better: Literal["higher", "lower"] = "higher"
    ours: float | None = None
    naive: float | None = None
    unit: str = ""
    pairs: int = 0
    repeated: int = 0
    disturbed: int = 0

    def reaches(self, mark: float | None) -> bool:
        if mark is None:
            return False
        return self.value >= mark if self.better == "higher" else self.value <= mark

    @property
    def verdict(self) -> str:
        """ "aim", "bar" or "missed", and whether other work was in the way."""
        known = (("aim", self.aim), ("bar", self.bar))
        reached = next((name for name, x in known if self.reaches(x)), "missed")
        return reached + (" (disturbed)" if self.disturbed else "")

    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            _number(self.ours, self.unit),
            _number(self.naive, self.unit),
            self._as(self.value),
            self._as(self.bar),
            self._as(self.aim),
            self.verdict,
            f"{self.pairs} (+{self.repeated})" if self.pairs else "",
        )

    def _as(self, value: float | None) -> str:
        if value is None:
            return ""
        if self.kind == "times":
            return f"{value:.1f}x"
        if self.kind == "share":
            return f"{100 * value:.1f}%"
        return _number(value, self.unit)


def total(spent: Spent) -> float:
    return spent["total"]


def facts(
    pairs: Pairs,
    side: str,
    of: Callable[[Spent], float] = total,
    scale: float = 1.0,
) -> dict[str, Any]:
    """What a row says of a side and the naive one: medians over pairs.

    `of` takes its number from what either side spent; `scale` leads to the row's unit.
    """
    return {
        "value": pairs.median(lambda pair: of(pair["naive"]) / of(pair[side])),
        "ours": scale * pairs.median(lambda pair: of(pair[side])),
        "naive": scale * pairs.median(lambda pair: of(pair["naive"])),
        **rest(pairs),
    }


def rest(pairs: Pairs) -> dict[str, int]:
    """How many pairs a row stands on, and how many were disturbed."""
    return {
        "pairs": len(pairs.kept),
        "repeated": pairs.repeated,
        "disturbed": pairs.disturbed,
    }


HEADS = ("row", "ours", "naive", "measured", "bar", "aim", "reached", "pairs")


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}".strip()


def table(rows: list[Row]) -> list[str]:
    """The rows in columns, under their heads."""
    lines = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADS))]
    return [
        "  ".join(
            cell.ljust(width) if k in (0, 6) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
