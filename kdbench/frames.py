"""Records as a DataFrame."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.records import Record
from kdbench.store import check_protocol, load

if TYPE_CHECKING:
    import pandas as pd


def load_results(*folders: Path | str) -> pd.DataFrame:
    """One row for each run in these folders, merged as a report does; teachers too.

    Columns: id, dataset, pair, recipe, protocol, engine, strategy, label, compression,
    family, seed, status, reason, teachers and students (names joined by "+"), headline
    (the measure that it is ranked by), code (of the strategy), cpu, device and gpu,
    every measure by its name, every cost as cost_NAME and every hyper-parameter as
    param_NAME; missing values are NaN. Warns of damaged files. Raises UserError for
    folders without a run and for records of different protocols.
    """
    import pandas as pd

    found = load([Path(folder) for folder in folders])
    check_protocol(found)
    for path, reason in found.damaged:
        warnings.warn(f"{path} is left out: {reason}", stacklevel=2)
    return pd.DataFrame([_row(record) for record in found.records])


def _row(record: Record) -> dict[str, object]:
    run = record.run
    row: dict[str, object] = {
        "id": record.id,
        "dataset": run.dataset,
        "pair": run.pair,
        "recipe": run.recipe.sentence(),
        "protocol": run.protocol,
        "engine": run.engine,
        "strategy": run.strategy,
        "label": run.label,
        "compression": run.compression,
        "family": record.family,
        "seed": run.seed,
        "status": record.status,
        "reason": record.reason,
        "teachers": "+".join(run.teachers),
        "students": "+".join(run.students),
        "headline": record.headline.name,
        "code": run.code.get("strategy"),
        **{name: record.environment.get(name) for name in ("cpu", "device", "gpu")},
    }
    fixed = set(row)
    for name, value in record.measures.items():
        row[f"measure_{name}" if name in fixed else name] = value
    row |= {f"cost_{name}": value for name, value in record.cost.items()}
    return row | {f"param_{name}": value for name, value in run.params.items()}
