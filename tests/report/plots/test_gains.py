"""Forest plots: every difference in its place, filled where it is significant."""

from __future__ import annotations

import itertools

import pytest

from kdbench.records import Headline
from kdbench.report.analysis import standings
from kdbench.report.plots.gains import gain_plots, signed
from kdbench.report.sections import sections

RMSE = Headline(name="rmse", title="RMSE", unit="m", gain_unit="m", better="lower")
MINUS = "\N{MINUS SIGN}"


def test_gains_show_each_paired_difference(make, look):
    (section,) = sections(make.standard())
    (plot,) = gain_plots(section)
    assert (plot.kind, plot.stem) == ("gains", f"{section.slug}-gains")
    figure = look.draw(plot)
    kd, scratch = figure.axes
    rows = [tick.get_text() for tick in kd.get_yticklabels()]
    assert rows == ["kd", "better"]  # from the bottom
    assert list(kd.get_yticks()) == [0, 1]
    better = next(s for s in standings(section) if s.label == "better")
    mark, words = look.of(figure, "better over kd")
    assert look.at(mark) == (pytest.approx((1 + 2.5 + 1) / 3), 1)
    half = better.over_kd.half_width
    assert look.bar_at(kd, 1) == pytest.approx([1.5 - half, 1.5 + half])
    assert words.startswith("better over kd: +1.50 ± 2.15 points, n = 3, p = ")
    mark, _ = look.of(figure, "kd over scratch")
    assert look.at(mark) == (pytest.approx((3 + 2 + 3) / 3), 0)
    assert mark.axes is scratch
    assert len(look.marks(figure)) == 3
    assert "95% t-interval" in plot.caption
    assert [axes.get_title(loc="right") for axes in (kd, scratch)] == ["n = 3"] * 2
    assert not [*kd.texts, *scratch.texts]


def test_each_row_tells_its_seeds_where_they_differ(make, look):
    records = [
        *make.strategy("kd", [80.0, 81.0, 82.0]),
        *make.strategy("all", [81.0, 82.0, 83.5]),
        *make.strategy("some", [80.5, None, 81.0]),
    ]
    (section,) = sections(make.results(*records))
    (axes,) = look.draw(gain_plots(section)[0]).axes
    assert axes.get_title(loc="right") == "n"
    rows = [tick.get_text() for tick in axes.get_yticklabels()]
    found = {rows[text.get_position()[1]]: text.get_text() for text in axes.texts}
    assert found == {"all": "3", "some": "2"}


def test_gains_are_filled_where_holm_leaves_them_significant(make, look):
    base = [80.0, 81.0, 82.0, 83.0]
    records = [
        make.strategy("kd", base),
        make.strategy("clear", [v + 2 + 0.01 * i for i, v in enumerate(base)]),
        make.strategy(
            "alone", [v + g for v, g in zip(base, (1, 1.5, 2, 3.5), strict=True)]
        ),
        make.strategy(
            "noise", [v + g for v, g in zip(base, (1, -1, 2, -2), strict=True)]
        ),
        make.strategy("fixed", [v + 1 for v in base]),
    ]
    (section,) = sections(make.results(*itertools.chain(*records)))
    by_label = {s.label: s for s in standings(section)}
    assert by_label["alone"].over_kd.p_value < 0.05 < by_label["alone"].p_kd
    assert by_label["fixed"].p_kd is None
    (plot,) = gain_plots(section)
    figure = look.draw(plot)
    assert len(figure.axes) == 1  # no scratch
    looks = {w.split(" over")[0]: look.filled(m) for w, m in look.marks(figure).items()}
    assert looks == {"clear": True, "alone": False, "noise": False, "fixed": False}
    assert look.of(figure, "fixed")[1].endswith("not tested")
    assert "Holm-adjusted" in plot.caption
    assert "(left)" not in plot.caption


def test_gains_of_one_seed_have_no_interval_and_say_so(make, look):
    records = [make.strategy(k, [v]) for k, v in (("kd", 80.0), ("other", 81.5))]
    (section,) = sections(make.results(*itertools.chain(*records)))
    (plot,) = gain_plots(section)
    figure = look.draw(plot)
    mark, words = look.of(figure, "other over kd")
    assert look.at(mark)[0] == pytest.approx(1.5)
    assert not look.filled(mark)
    assert look.bar_at(figure.axes[0], 0) is None
    assert words == "other over kd: +1.50 points, n = 1, not tested"
    assert "nothing was tested" in plot.caption
    assert "t-interval" not in plot.caption


def test_a_collapsed_gain_is_an_arrow_with_its_number(make, look):
    values = {"kd": 80, "a": 81, "b": 79.5, "c": 80.5, "gone": 11}
    records = [
        make.strategy(k, [v + look.wobble(k, seed) for seed in range(3)])
        for k, v in values.items()
    ]
    (section,) = sections(make.results(*itertools.chain(*records)))
    (plot,) = gain_plots(section)
    figure = look.draw(plot)
    (axes,) = figure.axes
    mark, words = look.of(figure, "gone over kd")
    low = axes.get_xlim()[0]
    assert (mark.get_marker(), look.at(mark)) == ("<", (low, 0))
    assert low > -10
    assert f"{MINUS}69.00" in [text.get_text() for text in axes.texts]
    assert "-69.00" in words
    assert look.bar_at(axes, 0) is None


def test_a_lower_error_is_a_gain_to_the_right(make, look):
    records = [
        make.record(k, seed, v + seed, headline=RMSE, measures={"rmse": v + seed})
        for k, v in (("kd", 58.0), ("lower", 57.0), ("higher", 60.0))
        for seed in range(2)
    ]
    (section,) = sections(make.results(*records))
    (plot,) = gain_plots(section)
    figure = look.draw(plot)
    assert look.at(look.of(figure, "lower over kd")[0]) == (1.0, 1)
    assert look.at(look.of(figure, "higher over kd")[0]) == (-2.0, 0)
    assert figure.axes[0].get_xlabel() == "gain over kd (m)"
    assert "lower RMSE" in plot.caption


def test_gains_need_a_reference_and_leave_compressed_students_out(make, look):
    alone = sections(make.results(*make.strategy("better", [84.0, 85.0])))
    assert gain_plots(alone[0]) == []
    changes = {"run": {"compression": "int8"}}
    small = [make.record("kd/int8", seed, 80.0 + seed, **changes) for seed in range(3)]
    standard = make.standard().records
    (section,) = sections(make.results(*standard, *small))
    assert any(s.compression and s.over_kd for s in standings(section))
    (plot,) = gain_plots(section)
    assert not [words for words in look.marks(look.draw(plot)) if "int8" in words]


def test_signed():
    assert [signed(x, 1) for x in (0.26, -0.26, 0.04, -0.04)] == [
        "+0.3",
        f"{MINUS}0.3",
        "0.0",
        "0.0",
    ]
