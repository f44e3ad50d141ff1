"""It writes the time of now, so that no report is the same as the last.

checks: same-twice
company: finishes
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench import Renderer, hookimpl


def render(results: Any, folder: Path) -> Sequence[Path]:
    path = folder / "count.txt"
    path.write_text(f"{len(results.records)} runs, written at {time.time_ns()}\n")
    return [path]


@hookimpl
def kdbench_renderers() -> list[Renderer]:
    return [Renderer(name="dated_renderer", summary="counts runs", render=render)]
