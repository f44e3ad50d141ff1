"""What can be done to a finished student with the host alone."""

from __future__ import annotations

from kdbench.api import Compression, hookimpl


@hookimpl
def kdbench_compressions() -> list[Compression]:
    return []
