"""Many plots drawn at once, by several processes, before anyone shows them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from kdbench.report.plots.style import Drawn, Plot, drawn, is_drawn, remember

ENOUGH = 24
"""Plots for which other processes pay."""

_todo: list[Plot] = []
"""What the other processes find when they are forked: results are too large to send."""


def draw_ahead(plots: Sequence[Plot]) -> None:
    """Draw those of many plots that are not drawn yet; of a few, and elsewhere, none.

    A fork is safe here where this is the only thread: what is forked only draws.
    """
    todo = [plot for plot in plots if not is_drawn(plot)]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if len(todo) < ENOUGH or cores < 2 or threading.active_count() > 1:
        return
    _todo[:] = todo
    try:
        forked = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(min(cores, 8), mp_context=forked) as pool:
            done = pool.map(_draw, range(len(todo)))
            for plot, found in zip(todo, done, strict=True):
                remember(plot, found)
    except BrokenProcessPool:
        return  # one was killed, perhaps for memory: the rest are drawn one by one
    finally:
        _todo.clear()


def _draw(place: int) -> Drawn:
    return drawn(_todo[place])
