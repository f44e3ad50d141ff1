"""Loading a plugin leaves the process as it was: its settings, its random generators.

Imports torch only where the process has it already: before, nothing can be changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untouched(changed: list[str]) -> Iterator[None]:
    """Put back what is changed inside; its names are added to `changed`."""
    if sys.modules.get("torch") is None:
        yield
        return
    from kdbench.randomness import global_generators, seeded_back
    from kdbench.settings import put_back, settings

    before, states = settings(), global_generators()
    with seeded_back():
        try:
            yield
        finally:
            changed += put_back(before)
            after = global_generators()
            moved = [name for name in states if after[name] != states[name]]
            changed += [f"{name}'s global random generator" for name in moved]
