"""The heat map: every gain printed, on a colour on which it can be read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgba

from kdbench.records import Headline
from kdbench.report.analysis import standings
from kdbench.report.plots import heat
from kdbench.report.plots.heat import heat_plots
from kdbench.report.sections import sections

RMSE = Headline(name="rmse", title="RMSE", unit="m", gain_unit="m", better="lower")
MINUS = "\N{MINUS SIGN}"

HEAT = {
    "kd": [70.0, 80.0, 60.0],
    "up": [72.0, 83.0, 61.0],
    "mixed": [69.0, 80.2, None],
    "gone": [70.5, 9.0, 60.1],
}


def test_heat_prints_every_gain_and_hatches_what_is_missing(look):
    found = look.settings(HEAT)
    (plot,) = heat_plots(found)
    assert (plot.kind, plot.stem) == ("heat", "overall-heat")
    figure = look.draw(plot)
    axes = figure.axes[0]
    rows = [tick.get_text() for tick in axes.get_yticklabels()]
    assert rows == ["up", "gone", "mixed"]  # medians 2, 0.1 and -0.4
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert names == ["big-small0", "big-small1", "big-small2"]
    texts = {text.get_position(): text for text in axes.texts}
    for (label, row), (place, section) in itertools.product(
        ((label, row) for row, label in enumerate(rows)), enumerate(found)
    ):
        mark, words = look.of(figure, f"{label}, {section.title}")
        assert mark.get_xy() == (place - 0.5, row - 0.5)
        gain = next(
            (s for s in standings(section) if s.label == label and s.over_kd), None
        )
        if gain is None:
            assert mark.get_hatch()
            assert (place, row) not in texts
            assert words.endswith("no gain over kd")
            continue
        assert not mark.get_hatch()
        shown = texts[place, row].get_text()
        number = float(shown.rstrip("*").replace(MINUS, "-"))
        assert number == pytest.approx(gain.over_kd.mean, abs=0.005)
        assert shown.endswith("*") == (gain.p_kd is not None and gain.p_kd < 0.05)
        assert "n = 3" in words
        assert "± " in words
    stars = [text for text in texts.values() if text.get_text().endswith("*")]
    assert 0 < len(stars) < len(texts)
    assert "Hatched" in plot.caption


def test_heat_is_white_at_zero_and_as_dark_either_way(look):
    found = look.settings(HEAT)
    (plot,) = heat_plots(found)
    figure = look.draw(plot)
    ends = [
        look.of(figure, f"{label}, {found[place].title}")[0].get_facecolor()
        for label, place in (("up", 1), ("gone", 1))
    ]
    shades = colormaps[heat.COLOURS]
    (one,) = heat.heats(found)
    sizes = sorted(abs(gain.mean) for gain, _ in one.cells.values())
    assert one.limit == sizes[-1]  # of eight, nine in ten are eight
    assert ends == [shades(0.5 + 3 / (2 * one.limit)), shades(0.0)]


def test_heat_numbers_can_be_read_on_every_colour():
    for share in np.linspace(0, 1, 101):
        colour = colormaps[heat.COLOURS](share)
        under, over = heat.luminance(colour), heat.luminance(to_rgba(heat.ink(colour)))
        contrast = (max(under, over) + 0.05) / (min(under, over) + 0.05)
        assert contrast >= 4.5


def test_heat_clips_colours_where_one_gain_in_ten_lies_beyond(look):
    values = {"kd": [70.0] * 4} | {
        f"s{k}": [70.0 + 0.1 * (k + 1)] * 4 for k in range(9)
    }
    values["gone"] = [10.0] * 4
    (plot,) = heat_plots(look.settings(values))
    (one,) = heat.heats(look.settings(values))
    assert one.limit == pytest.approx(0.9)
    assert "±0.9" in plot.caption
    figure = look.draw(plot)
    mark, _ = look.of(figure, "gone, digits / big-small0")
    assert mark.get_facecolor() == colormaps[heat.COLOURS](0.0)


def test_heat_needs_two_settings_and_keeps_units_apart(look):
    assert heat_plots(look.settings({"kd": [70.0], "a": [71.0]})) == []
    percent = look.settings({"kd": [70.0, 60.0], "a": [71.0, 61.0]})
    metres = look.settings(
        {"kd": [7.0, 6.0, 5.0], "a": [7.5, 6.5, 4.5]},
        headline=RMSE.model_copy(update={"name": "top1"}),
    )
    without = look.settings({"a": [50.0]})
    first, second = heat_plots([*percent, *metres, *without])
    assert (first.stem, second.stem) == ("overall-heat", "overall-heat-2")
    assert "(m)" in first.title
    assert "(points)" in second.title
    assert "Of the 6 settings 3 are left out" in first.caption
    figure = look.draw(first)
    assert [t.get_text()[0] for t in figure.axes[0].texts] == [MINUS, MINUS, "+"]


def test_heat_of_one_seed_says_that_nothing_was_tested(look):
    (plot,) = heat_plots(look.settings(HEAT, seeds=1))
    assert "No difference could be tested" in plot.caption
    assert not [t for t in look.draw(plot).axes[0].texts if "*" in t.get_text()]


def test_settings_of_one_short_name_are_numbered(make):
    long, end = "teacher" * 8, "student" * 4
    runs = [
        make.record(label, 0, 70.0, run={"pair": f"{long}{k}{end}"})
        for label in ("kd", "a")
        for k in range(2)
    ]
    names = heat.setting_names(sections(make.results(*runs)))
    assert len(set(names)) == 2
    assert [name[-3:] for name in names] == ["(1)", "(2)"]
