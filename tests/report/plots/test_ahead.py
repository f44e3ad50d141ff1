"""Many plots drawn by other processes are those that this one draws."""

import os
import sys
import threading
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from kdbench.report.plots import ahead
from kdbench.report.plots.style import Plot, drawn, is_drawn

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="plots are drawn ahead on Linux only"
)


def labelled(number, draws):
    def draw():
        draws.append(number)
        figure = Figure(figsize=(2, 2))
        figure.subplots().set_title(f"plot {number}, {os.getpid()}")
        return figure

    return Plot("own", f"own-{number}", "Own", "", "", draw)


@pytest.fixture
def draws(monkeypatch):
    """What this process has drawn; two plots are many, and there are two cores."""
    monkeypatch.setattr(ahead, "ENOUGH", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    return []


def test_each_is_drawn_once_and_elsewhere(draws):
    plots = [labelled(number, draws) for number in range(3)]
    ahead.draw_ahead(plots)
    assert all(map(is_drawn, plots))
    for number, plot in enumerate(plots):
        assert f"plot {number}, " in drawn(plot).svg
        assert f", {os.getpid()}" not in drawn(plot).svg
    assert draws == []


def test_a_few_or_beside_other_threads_none_is(draws, monkeypatch):
    plots = [labelled(number, draws) for number in range(3)]
    ahead.draw_ahead(plots[:1])
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    ahead.draw_ahead(plots)
    assert not any(map(is_drawn, plots))


def test_a_process_that_is_killed_costs_no_plot(draws):
    plots = [labelled(0, draws), labelled(1, draws)]
    here = os.getpid()

    def deadly():
        if os.getpid() != here:
            os._exit(9)
        return labelled(2, draws).draw()

    plots.append(replace(plots[0], stem="deadly", draw=deadly))
    ahead.draw_ahead(plots)
    assert not is_drawn(plots[2])
    assert "plot 2, " in drawn(plots[2]).svg
