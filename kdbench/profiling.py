"""Where the time of a run went, for `kdbench run --profile`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from kdbench.records import Run

SHARED = {"data_share": "data", "teacher_share": "teacher"}
OWN = ("student", "adapters", "loss", "backward", "graph", "optimiser")
BESIDE = {"evaluation": "test", "checkpoint": "saving"}
PARTS = (*SHARED.values(), *OWN, "rest", *BESIDE.values())
RARE = ("adapters", "graph", "saving")
"""Shown only where somebody has them."""

Times = Mapping[str, Mapping[str, float]]
"""Phase -> part -> seconds."""

Row = dict[str, float]
"""Part, or "all" -> seconds."""


class Profile:
    """The times of the runs that have ended, by strategy and phase."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Row] = defaultdict(
            lambda: dict.fromkeys((*PARTS, "all"), 0.0)
        )

    def add(self, run: Run, times: Times) -> None:
        """Add a run's times to those of its strategy on its pair, all seeds in one."""
        for phase, parts in times.items():
            row = self._rows[f"{run.dataset} {run.pair}", run.label, phase]
            for part, seconds in _shown(parts).items():
                row[part] += seconds

    def tables(self) -> list[Table]:
        """One for each dataset and pair, the most expensive strategy first."""
        places: dict[str, dict[str, list[tuple[str, Row]]]] = {}
        for (place, label, phase), row in self._rows.items():
            places.setdefault(place, {}).setdefault(label, []).append((phase, row))
        return [_table(place, strategies) for place, strategies in places.items()]


def _shown(parts: Mapping[str, float]) -> Row:
    """Shares of what all use, own parts, and what is left of a run's own time.

    What is left of the loop's is with it.
    """
    shown = {name: parts.get(key, 0.0) for key, name in SHARED.items()}
    shown |= {name: parts.get(key, 0.0) for key, name in BESIDE.items()}
    shown |= {name: parts.get(name, 0.0) for name in OWN}
    own = parts.get("own", 0.0) + parts.get("loop_rest", 0.0)
    shown["rest"] = own - sum(shown[name] for name in OWN)
    shown["all"] = sum(shown.values())
    return shown


def _table(place: str, strategies: Mapping[str, Sequence[tuple[str, Row]]]) -> Table:
    table = Table(
        title=f"Where the time went: {place}",
        caption="Shares of the time of a row. Data and teacher are shared: all rows "
        "add up to the training's time, all seeds together. Rest: the engine's own, "
        "and everything of a strategy with its own loop. Test: the "
        "evaluation after every epoch.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title_justify="left",
        caption_justify="left",
    )
    rows = [row for phases in strategies.values() for _, row in phases]
    total = {name: sum(row[name] for row in rows) for name in (*PARTS, "all")}
    shown = [name for name in PARTS if total[name] or name not in RARE]
    for name in ("strategy", "phase"):
        table.add_column(name.capitalize(), no_wrap=True)
    for name in ("seconds", *shown):
        table.add_column(name.capitalize(), justify="right", no_wrap=True)

    def add(label: str, phase: str, row: Row) -> None:
        whole = row["all"] or 1.0
        shares = [f"{row[name] / whole:.0%}" for name in shown]
        table.add_row(label, phase, f"{row['all']:.1f}", *shares)

    def cost(phases: Sequence[tuple[str, Row]]) -> float:
        return -sum(row["all"] for _, row in phases)

    for label, phases in sorted(strategies.items(), key=lambda item: cost(item[1])):
        for phase, row in phases:
            add(label, phase, row)
    table.add_section()
    add("all", "", total)
    return table
