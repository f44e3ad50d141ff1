"""It writes beside the folder that it is given.

checks: own-folder
company: finishes
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench import Renderer, hookimpl


def render(results: Any, folder: Path) -> Sequence[Path]:
    count = f"{len(results.records)} runs\n"
    inside, outside = folder / "count.txt", folder.parent / "stray_renderer.txt"
    inside.write_text(count)
    outside.write_text(count)
    return [inside]


@hookimpl
def kdbench_renderers() -> list[Renderer]:
    return [Renderer(name="stray_renderer", summary="counts runs", render=render)]
