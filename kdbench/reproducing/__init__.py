"""Published records done again: a few cells are trained anew, and compared.

`cells` reads and draws them, `anew` plans them from their records alone, `judging`
holds the new records against them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.engine import Stopped
from kdbench.job import Job
from kdbench.plugins import Host
from kdbench.reproducing.anew import Again, again, merged
from kdbench.reproducing.cells import Cell
from kdbench.reproducing.judging import Judged, judge
from kdbench.stats import level_of_each
from kdbench.store import runs_in

WRONG = 0.01
"""The share of checks in which any cell lies outside its interval though nothing is
wrong: the level of each is corrected for their number (Bonferroni)."""


@dataclass(frozen=True)
class Outcome:
    """What came of each cell; where it was interrupted, of those that were done."""

    judged: tuple[Judged, ...]
    level: float
    interrupted: bool = False


def reproduce(
    cells: Sequence[Cell],
    host: Host,
    items: Mapping[str, int],
    data_dir: Path | None,
    train: Callable[[Sequence[Job]], None],
) -> Outcome:
    """Train these cells anew, their teachers too, and judge what came of each.

    Everything is written to a temporary folder; the cells' own folders and the cache
    of teachers are neither read for it nor touched. `train` runs jobs; where it raises
    KeyboardInterrupt or Stopped, the cells that are done by then are judged.
    """
    level = level_of_each(len(cells), WRONG)
    judged: list[Judged] = []
    with tempfile.TemporaryDirectory(prefix="kdbench-reproduce-") as top:
        for number, folder in enumerate(dict.fromkeys(cell.folder for cell in cells)):
            out = Path(top, str(number))
            out.mkdir()
            mine = [
                again(cell, host, items, out, data_dir)
                for cell in cells
                if cell.folder == folder
            ]
            interrupted = False
            try:
                train(merged(mine))
            except (KeyboardInterrupt, Stopped):
                interrupted = True
            records = {record.id: record for record in runs_in(out)}
            judged += [
                judge(one, records, level, host)
                for one in mine
                if not (interrupted and _is_open(one, records))
            ]
            if interrupted:
                return Outcome(tuple(judged), level, interrupted=True)
    return Outcome(tuple(judged), level)


def _is_open(one: Again, records: Mapping[str, object]) -> bool:
    return one.run is not None and one.run.id not in records
