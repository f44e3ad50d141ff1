"""Accuracy, curves and trade-offs: what is drawn, where, and what its marks say."""

import base64
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from kdbench import stats
from kdbench.records import RMSE, TOP1
from kdbench.report.analysis import standings
from kdbench.report.plots.accuracy import accuracy_plots
from kdbench.report.plots.curves import band, curve_plots, mean_curve
from kdbench.report.plots.front import front
from kdbench.report.plots.gains import gain_plots
from kdbench.report.plots.labels import told
from kdbench.report.plots.orientation import row_of
from kdbench.report.plots.style import (
    TIP,
    drawn,
    inline,
    save,
    styled,
)
from kdbench.report.plots.tradeoff import tradeoff_plots
from kdbench.report.sections import sections
from kdbench.report.training_cost import cost_table, relative

LONG = "kd[temperature=4,alpha=0.9]" + "x" * 60
ODD = ("a$\\alpha$_b%{}#^~", "<script>alert('&')</script>", "Größe 蒸留", LONG)


def only(plots):
    (plot,) = plots
    return plot


def the(plots, end):
    return only([plot for plot in plots if plot.stem.endswith(end)])


def marks(figure):
    """Words of a mark -> the artists that have them."""
    found = {}
    for artist in figure.findobj(lambda a: str(a.get_gid()).startswith(TIP)):
        coded = artist.get_gid().removeprefix(TIP)
        words = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
        found.setdefault(words, []).append(artist)
    return found


def mark(figure, start):
    """The artist whose words start so; it must be one."""
    return only([a for words, a in marks(figure).items() if words.startswith(start)])[0]


def draw(plot):
    with styled():
        return plot.draw()


def texts(figure):
    return [
        text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))
    ]


def priced(make, prices, **changes):
    """scratch, kd and others whose training takes this many seconds, by seed."""
    return [
        record.model_copy(update={"cost": {"train_s": seconds}})
        for label, (values, times) in prices.items()
        for record, seconds in zip(
            make.strategy(label, values, **changes), times, strict=True
        )
    ]


# words


def test_words_of_a_mark_by_hand(make):
    section = only(sections(make.standard()))
    found = {s.label: told(section, s) for s in standings(section)}
    # 84, 85.5, 86 against 83, 83, 85: 1.5 with sd 0.866, t = 3.0, two degrees
    assert found["better"] == (
        "better: 85.17 ± 2.59 %, n = 3; +1.50 ± 2.15 points over kd "
        "(p = 0.10, n.s., Holm-adjusted)"
    )
    assert found["kd"].startswith("kd: 83.67 ± 2.87 %, n = 3; +2.67 ± ")
    assert "points over scratch (p = 0.015, Holm-adjusted)" in found["kd"]
    assert found["scratch"] == "scratch: 81.00 ± 2.48 %, n = 3"


def test_words_of_one_seed_claim_no_interval_and_no_test(make):
    records = [*make.strategy("scratch", [80.0]), *make.strategy("kd", [82.0])]
    section = only(sections(make.results(*records)))
    kd = standings(section)[1]
    assert told(section, kd) == "kd: 82.00 %, n = 1; +2.00 points over scratch"


def test_an_error_that_falls_is_a_gain(make):
    records = [
        make.record(label, 0, 1.0, headline=RMSE, measures={"rmse": value})
        for label, value in (("scratch", 60.0), ("kd", 55.0))
    ]
    section = only(sections(make.results(*records)))
    assert told(section, standings(section)[1]) == (
        "kd: 55.00, n = 1; +5.00 over scratch"
    )


def test_data_tip_holds_drawn_marks_and_every_odd_word(make):
    records = [*make.strategy("scratch", [80.0, 81.0])]
    for label in (*ODD, "two\nlines\x00"):
        records += make.strategy(label, [82.0, 84.0], curves={"top1": [1.0, 2.0]})
    section = only(sections(make.results(make.teacher(), *records)))
    for plot in (*accuracy_plots(section), *curve_plots(section)):
        svg = inline(plot).replace("<svg", '<svg xmlns:xlink="x"', 1)
        found = {}
        for element in ET.fromstring(svg).iter():  # noqa: S314  # our own text
            if words := element.get("data-tip"):
                shapes = [*element.iter("path"), *element.iter("use")]
                found[words.partition(": ")[0]] = len(shapes)
        assert {*ODD, "two lines "} <= found.keys()
        assert min(found.values()) > 0


# accuracy


def test_a_mark_is_the_mean_with_its_interval(make):
    section = only(sections(make.standard()))
    figure = draw(only(accuracy_plots(section)))
    line = mark(figure, "better: ")
    half = stats.interval([84.0, 85.5, 86.0]).half_width
    mean = (84.0 + 85.5 + 86.0) / 3
    assert list(line.get_xdata()) == pytest.approx([mean - half, mean, mean + half])
    assert line.get_markevery() == [1]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["scratch", "kd", "better"]
    assert mark(figure, "teacher big: 90.00 %, n = 1").get_xdata()[0] == 90.0


def test_one_seed_has_no_bar_and_the_caption_says_so(make):
    section = only(sections(make.results(*make.strategy("kd", [82.0]))))
    plot = only(accuracy_plots(section))
    assert set(mark(draw(plot), "kd: ").get_xdata()) == {82.0}
    assert "one seed" in plot.caption
    assert "interval is unknown" in plot.caption
    assert "95%" not in plot.caption
    assert "Hollow: kd." in plot.caption


def test_a_collapsed_run_is_an_arrow_with_its_number(make):
    values = {"scratch": 90.0, "kd": 91.0, "a": 92.0, "b": 91.5, "lost": 10.0}
    records = [
        r
        for k, v in values.items()
        for r in make.strategy(k, [v, v + 0.5], test_items=300)
    ]
    plot = only(accuracy_plots(only(sections(make.results(*records)))))
    figure = draw(plot)
    arrow = mark(figure, "lost: 10.2 ")
    assert arrow.get_marker() == "<"
    assert figure.axes[0].get_xlim()[0] == arrow.get_xdata()[0] > 80
    assert "10.2" in texts(figure)  # as many digits as in the tables
    assert "An arrow" in plot.caption


def test_compressed_students_stand_apart_at_the_foot(make):
    run = {"compression": "half", "source": "x", "teacher_runs": (make.teacher().id,)}
    small = [make.record("kd/half", s, 99.0, run=run) for s in (0, 1)]
    section = only(sections(make.results(*make.standard().records, *small)))
    plot = only(accuracy_plots(section))
    rows = [t.get_text() for t in draw(plot).axes[0].get_yticklabels()]
    assert rows == ["kd/half", "scratch", "kd", "better"]
    assert "compressed" in plot.caption


@pytest.mark.parametrize("rows", [1, 24, 55])
def test_a_forest_plot_fits_a_page(rows):
    inches, points = row_of(rows)
    assert 1.2 + rows * inches <= 9.3
    assert points <= 72 * inches * 0.75


# curves


def curved(make, curves, **changes):
    records = [
        make.record(label, seed, curve[-1] or 1.0, curves={"top1": curve}, **changes)
        for label, seeds in curves.items()
        for seed, curve in enumerate(seeds)
    ]
    return only(sections(make.results(*records)))


def test_a_band_is_the_t_interval_of_each_epoch(make):
    seeds = [
        [10.0, 50.0, 80.0, 81.0],
        [20.0, 52.0, None, 83.0],
        [15.0, 51.0, 81.0, 82.0],
    ]
    section = curved(make, {"kd": seeds})
    assert mean_curve(section, "kd") == pytest.approx(
        [15.0, 51.0, math.nan, 82.0], nan_ok=True
    )
    for epoch, (low, high) in enumerate(band(section, "kd")):
        values = [seed[epoch] for seed in seeds]
        if None in values:
            assert math.isnan(low)
            assert math.isnan(high)
        else:
            found = stats.interval(values)
            assert (low, high) == (
                pytest.approx(found.mean - found.half_width),
                pytest.approx(found.mean + found.half_width),
            )


def test_no_band_for_one_seed_or_for_curves_of_other_length(make):
    section = curved(make, {"kd": [[1.0, 2.0, 3.0]], "a": [[1.0, 2.0], [3.0]]})
    assert band(section, "kd") == []
    assert band(section, "a") == []
    assert "No bands" in only(curve_plots(section)).caption


def test_bands_of_a_longer_training_are_of_its_last_epochs(make):
    longer = [[float(e + s) for e in range(9)] for s in (0, 2)]
    section = curved(make, {"kd": [[1.0, 2.0, 3.0, 4.0]] * 2, "scratch_longer": longer})
    ends = band(section, "scratch_longer")
    means = mean_curve(section, "scratch_longer")
    assert means == [6.0, 7.0, 8.0, 9.0]
    assert [sum(pair) / 2 for pair in ends] == pytest.approx(means)


def test_bands_of_errors_are_turned_too(make):
    records = [
        make.record(
            "kd",
            seed,
            1.0,
            headline=RMSE,
            measures={"rmse": 5.0},
            curves={"rmse": [9.0, 5.0 + seed]},
        )
        for seed in (0, 1)
    ]
    section = only(sections(make.results(*records)))
    (first, (low, high)) = band(section, "kd")
    assert first == (-9.0, -9.0)
    assert low < -5.5 < high < 5


def bands(axes):
    return [c.get_paths()[0].vertices[:, 1] for c in axes.collections]


@pytest.mark.parametrize(
    ("better", "ends"), [("higher", (0, 100)), ("lower", (-100, 0))]
)
def test_bands_of_percentages_end_at_0_and_100(make, better, ends):
    headline = TOP1.model_copy(update={"better": better})
    records = [
        make.record(
            label, s, 1.0, headline=headline, curves={"top1": [v, 10.0 * s, 90 + v]}
        )
        for label in ("kd", "a")
        for s, v in ((0, 3.0), (1, 9.0))
    ]
    plot = only(curve_plots(only(sections(make.results(*records)))))
    edges = np.array(band(only(sections(make.results(*records))), "kd"))
    assert (edges.min() < ends[0], edges.max() > ends[1]) == (True, True)
    axes = draw(plot).axes[0]
    for heights in bands(axes):
        assert (heights.min(), heights.max()) == ends
    assert "cut at 0 and 100%" in plot.caption


def test_a_band_that_would_cover_a_panel_is_left_out_of_it(make):
    kd = [[10.0, 60.0, 80.0, 80.1], [12.0, 61.0, 80.3, 80.2]]
    wild = [[10.0, 58.0, 78.0, 78.0], [12.0, 62.0, 82.0, 82.0]]
    section = curved(make, {"kd": kd, "wild": wild})
    plot = only(curve_plots(section))
    left, right = draw(plot).axes
    assert (len(bands(left)), len(bands(right))) == (2, 1)
    assert 57 < right.get_ylim()[0] < 60  # of the means, not of the bands
    low, high = np.array(band(section, "kd")).T
    edges = [list(line.get_ydata()) for line in left.lines]
    for edge in (low, high):
        assert list(np.clip(edge, 0, 100)) in edges
    assert "wider than a panel" in plot.caption


def test_only_named_strategies_have_bands_and_each_curve_has_words(make):
    curves = {
        name: [[50.0 + i, 60.0 + i], [51.0 + i, 60.5 + i]]
        for i, name in enumerate(("scratch", "kd", *"abcdef"))
    }
    section = curved(make, curves)
    figure = draw(only(curve_plots(section)))
    for axes in figure.axes:
        assert len(axes.collections) == 5  # scratch, kd and the three best
    assert {words.partition(":")[0] for words in marks(figure)} == set(curves)
    named = {t.strip() for t in texts(figure)} & set(curves)
    assert named == {"scratch", "kd", "d", "e", "f"}


def test_named_curves_differ_without_colour(make):
    curves = {name: [[50.0, 60.0 + i]] for i, name in enumerate("abc")}
    section = curved(make, {"scratch": [[1.0, 2.0]], "kd": [[1.0, 3.0]], **curves})
    left = draw(only(curve_plots(section))).axes[0]
    dashes = [str(line._dash_pattern) for line in left.lines]
    assert len(dashes) == len(set(dashes)) == 5


# the Pareto front


def test_the_front_is_what_nothing_dominates():
    rng = np.random.default_rng(3)
    for _ in range(200):
        points = [(int(x), int(y)) for x, y in rng.integers(1, 7, (9, 2))]
        free = [
            i
            for i, (x, y) in enumerate(points)
            if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        ]
        found = front(points)
        assert sorted(found) == free
        assert [points[i] for i in found] == sorted(points[i] for i in free)


# trade-offs


@pytest.fixture
def sized(make):
    """A teacher of 4000 parameters and students of 1000."""
    sizes = {"parameters": 1000.0, "macs": 20_000.0, "size_bytes": 4000.0}
    values = {"scratch": [80.0, 82.0], "kd": [83.0, 85.0], "best": [88.0, 88.0]}
    students = [
        record.model_copy(update={"measures": record.measures | sizes})
        for label, seeds in values.items()
        for record in make.strategy(label, seeds)
    ]
    speed = [make.speed("big", 4.0), make.speed("small", 1.5)]
    return make.results(make.teacher(), *students, speed=speed)


def test_each_cost_has_its_file_and_names_its_front(sized):
    plots = tradeoff_plots(sections(sized))
    assert [(plot.stem, plot.title) for plot in plots] == [
        ("overall-digits-latency", "digits: accuracy against latency"),
        ("overall-digits-size", "digits: accuracy against parameters"),
        ("overall-digits-macs", "digits: accuracy against MACs"),
    ]
    for plot in plots:
        assert "small by best; big (teacher)." in plot.caption
        figure = draw(plot)
        assert list(
            mark(figure, "best: 88.00 ± 0.00 %, n = 2; small, ").get_ydata()
        ) == [88]
        assert list(mark(figure, "teacher: 90.00 %, n = 1; big, ").get_ydata()) == [90]
    latency = draw(plots[0])
    assert list(mark(latency, "kd: 84.00 ").get_xdata()) == [1.5]
    assert any(words.endswith("small, 1.50 ms") for words in marks(latency))


def test_the_front_is_drawn_through_its_members(sized):
    axes = draw(the(tradeoff_plots(sections(sized)), "size")).axes[0]
    (step,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(step.get_xdata()) == [1000, 4000, axes.get_xlim()[1]]
    assert list(step.get_ydata()) == [88, 90, 90]


def test_macs_only_where_all_are_known(sized):
    last = sized.records[-1]
    unknown = last.model_copy(update={"measures": last.measures | {"macs": None}})
    sized.records[-1] = unknown
    stems = [plot.stem for plot in tradeoff_plots(sections(sized))]
    assert stems == ["overall-digits-latency", "overall-digits-size"]


def test_a_compressed_student_is_weighed_in_bytes(make, sized):
    run = {"compression": "half", "source": "x", "teacher_runs": (make.teacher().id,)}
    sizes = {"parameters": 1000.0, "macs": 20_000.0, "size_bytes": 2000.0}
    half = make.record("kd/half", 0, 84.0, run=run, measures={"top1": 84.0} | sizes)
    sized.records.append(half)
    plot = the(tradeoff_plots(sections(sized)), "size")
    assert "small/half by kd; small by best; big (teacher)." in plot.caption
    figure = draw(plot)
    assert list(mark(figure, "kd/half: ").get_xdata()) == [2000]
    assert "bytes" in figure.axes[0].get_xlabel()
    assert plot.title == "digits: accuracy against size"


def test_models_of_one_cost_stand_at_that_cost(make):
    """Two pairs of one student, and a teacher each: nothing is moved along the axis."""
    sizes = {"parameters": 1000.0, "size_bytes": 4000.0, "macs": None}
    weights = {"parameters": 4000.0, "size_bytes": 16_000.0}
    teachers = [
        make.record(
            "teacher",
            0,
            95.0 + k,
            run={"students": (name,), "teachers": (), "pair": name},
            measures={"top1": 95.0 + k} | weights,
        )
        for k, name in enumerate("ab")
    ]
    records = [
        make.record(
            label,
            0,
            value + k,
            run={"pair": f"{t.run.deployed}-small", "teacher_runs": (t.id,)},
            measures={"top1": value + k} | sizes,
        )
        for k, t in enumerate(teachers)
        for label, value in (("scratch", 80.0), ("kd", 85.0), ("best", 90.0))
    ]
    plot = the(tradeoff_plots(sections(make.results(*teachers, *records))), "size")
    figure = draw(plot)
    students = [a for w, found in marks(figure).items() if "small" in w for a in found]
    assert len(students) >= 6
    assert {float(x) for a in students for x in a.get_xdata()} == {1000.0}
    axes = figure.axes[0]
    *stems, step = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [list(line.get_xdata()) for line in stems] == [[1000, 1000]] * 2
    assert step.get_drawstyle() == "steps-post"
    assert list(step.get_xdata())[:2] == [1000, 4000]
    assert "stand on one vertical line" in plot.caption
    assert {"small\nfrom a\nbest", "small\nfrom b\nbest"} <= set(texts(figure))


def timed(records):
    """Those that were timed in their own run."""
    return [
        r.model_copy(update={"measures": r.measures | {"latency_ms": 2.0 + place}})
        for place, r in enumerate(records)
    ]


def test_no_latency_where_only_a_run_that_timed_itself_has_one(make):
    sizes = {"parameters": 1000.0, "size_bytes": 4000.0}
    records = [
        make.strategy(label, [80.0], measures={"top1": 80.0} | sizes)[0]
        for label in ("scratch", "kd", "a", "b")
    ]
    some = make.results(make.teacher(), *records[:2], *timed(records[2:]))
    assert [p.stem for p in tradeoff_plots(sections(some))] == ["overall-digits-size"]
    all_timed = make.results(*timed(records))
    assert "overall-digits-latency" in [
        p.stem for p in tradeoff_plots(sections(all_timed))
    ]
    speed = [make.speed("small", 4.0)]
    part = make.results(make.teacher(), *records[:2], *timed(records[2:]), speed=speed)
    plot = the(tradeoff_plots(sections(part)), "latency")
    assert "Left out, without a latency there: 1." in plot.caption


def test_training_time_is_that_of_the_table(make):
    prices = {
        "scratch": ([80.0, 82.0], [10.0, 20.0]),
        "kd": ([83.0, 85.0], [15.0, 20.0]),
        "dear": ([84.0, 84.0], [40.0, 40.0]),
    }
    section = only(sections(make.results(make.teacher(), *priced(make, prices))))
    plot = the(tradeoff_plots([section]), "training")
    figure = draw(plot)
    table = cost_table(section)
    for row, label in enumerate(("scratch", "kd", "dear")):
        (x,) = {a.get_xdata()[0] for a in marks(figure)[words_of(figure, label)]}
        assert x == relative(section, label, "train_s")
        assert x == table.cell(row, "relative").value
    assert relative(section, "kd", "train_s") == 1.25
    assert (
        "nothing shown beats at the same cost, or matches at less: scratch, kd."
        in plot.caption
    )
    assert "1.25x scratch's training time" in words_of(figure, "kd")


def words_of(figure, label):
    return only([words for words in marks(figure) if words.startswith(f"{label}: ")])


def test_times_of_another_machine_are_left_out(make):
    prices = {"scratch": ([80.0], [10.0]), "kd": ([83.0], [15.0])}
    other = priced(make, {"far": ([84.0], [1.0])}, environment={"cpu": "other"})
    section = only(sections(make.results(*priced(make, prices), *other)))
    plot = the(tradeoff_plots([section]), "training")
    assert {w.partition(":")[0] for w in marks(draw(plot))} == {"scratch", "kd"}
    assert "Left out, without such a time: 1." in plot.caption


def test_compressed_students_have_no_training_time_of_their_own(make):
    prices = {"scratch": ([80.0], [10.0]), "kd": ([83.0], [15.0])}
    half = priced(make, {"kd/half": ([99.0], [1.0])})[0]
    run = half.run.model_copy(update={"compression": "half", "source": "x"})
    half = half.model_copy(update={"run": run, "id": run.id})
    section = only(sections(make.results(*priced(make, prices), half)))
    figure = draw(the(tradeoff_plots([section]), "training"))
    assert {w.partition(":")[0] for w in marks(figure)} == {"scratch", "kd"}


def test_no_plot_of_one_cost_or_without_costs(make):
    assert tradeoff_plots(sections(make.standard())) == []
    prices = {"scratch": ([80.0], [10.0]), "kd": ([83.0], [10.0])}
    assert tradeoff_plots(sections(make.results(*priced(make, prices)))) == []


def test_each_pair_is_a_panel_with_a_front_of_its_own(make):
    prices = {"scratch": ([80.0], [10.0]), "kd": ([83.0], [15.0])}
    records = [
        make.record(
            label,
            0,
            values[0] + k,
            run={"pair": f"pair-{k}"},
            cost={"train_s": times[0]},
        )
        for k in range(4)
        for label, (values, times) in prices.items()
    ]
    plot = the(tradeoff_plots(sections(make.results(*records))), "training")
    figure = draw(plot)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"pair-{k}" for k in range(4)
    ]
    for k, axes in enumerate(figure.axes):
        (step,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
        assert list(step.get_ydata()) == [80 + k, 83 + k, 83 + k]


def test_those_far_below_are_an_arrowhead_that_names_them(make):
    prices = {
        label: ([value], [10.0 + place])
        for place, (label, value) in enumerate(
            {"scratch": 90.0, "kd": 91.0, "a": 92.0, "b": 91.5, "lost": 10.0}.items()
        )
    }
    plot = the(
        tradeoff_plots(sections(make.results(*priced(make, prices)))), "training"
    )
    figure = draw(plot)
    arrow = mark(figure, "Below the frame: lost: 10.00 %")
    assert arrow.get_ydata()[0] == figure.axes[0].get_ylim()[0] > 80
    assert "arrowhead" in plot.caption


def test_every_strategy_that_a_caption_lists_is_labelled(make):
    prices = {f"s{k}": ([80.0 + k], [10.0 + k]) for k in range(6)}
    prices["scratch"] = ([79.0], [9.0])
    longer = prices | {f"s{k}": ([80.0 + k], [10.0 + k]) for k in range(6, 10)}
    records = [
        make.record(label, 0, *values, run={"pair": pair}, cost={"train_s": seconds})
        for pair, known in (("one", prices), ("two", longer))
        for label, (values, (seconds,)) in known.items()
    ]
    plot = the(tradeoff_plots(sections(make.results(*records))), "training")
    listed = plot.caption.partition("at less: ")[2].rstrip(".").split("; ")
    figure = draw(plot)
    for words, axes, count in zip(listed, figure.axes, (7, 8), strict=True):
        names = words.partition(": ")[2].partition(" and ")[0].split(", ")
        assert len(names) == count
        assert {text.get_text() for text in axes.texts} == set(names)
    assert listed[1].endswith(" and 3 more")


def test_55_strategies_fit_a_page(make):
    values = {"scratch": 80.0, "kd": 81.0} | {f"s{k}": 82.0 + k / 9 for k in range(53)}
    section = only(
        sections(
            make.results(
                *(r for k, v in values.items() for r in make.strategy(k, [v, v + 0.5]))
            )
        )
    )
    for plots in (accuracy_plots, gain_plots):
        assert draw(only(plots(section))).get_figheight() <= 9.5


def test_three_formats_of_odd_names_without_a_warning(make, tmp_path, recwarn):
    prices = {label: ([80.0 + i], [10.0 + i]) for i, label in enumerate(ODD)}
    prices["scratch"] = ([79.0], [9.0])
    plots = tradeoff_plots(sections(make.results(*priced(make, prices))))
    found = drawn(only(plots))
    assert found.pdf.startswith(b"%PDF")
    assert found.png.startswith(b"\x89PNG")
    paths = save(only(plots), tmp_path)
    assert [path.suffix for path in paths] == [".svg", ".pdf", ".png"]
    ET.parse(paths[0])  # noqa: S314  # our own text
    assert not recwarn.list
