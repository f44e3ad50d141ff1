"""Accuracy against training time: whose is known, and what is labelled."""

from __future__ import annotations

import sys
from pathlib import Path

from kdbench.records import Recipe
from kdbench.report.plots.tradeoff import tradeoff_plots
from kdbench.report.sections import sections
from kdbench.report.training_cost import cost_table, relative

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from marking import draw, mark, marks, only, priced, the


def words_of(figure, label):
    return only([words for words in marks(figure) if words.startswith(f"{label}: ")])


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


def test_two_recipes_on_one_dataset_have_plots_that_tell_them_apart(make):
    records = [
        make.record(
            label,
            0,
            top1,
            run={"pair": pair, "recipe": Recipe(lr=lr)},
            cost={"train_s": seconds},
        )
        for pair, lr in (("pair-a", 0.05), ("pair-b", 0.01), ("pair-c", 0.01))
        for label, top1, seconds in (("scratch", 80.0, 10.0), ("kd", 85.0, 12.0))
    ]
    plots = tradeoff_plots(sections(make.results(*records)))
    assert [(plot.stem, plot.title) for plot in plots] == [
        (
            "overall-digits-pair-a-training",
            "digits / pair-a: accuracy against training time",
        ),
        (
            "overall-digits-pair-b-training",
            "digits / pair-b, digits / pair-c: accuracy against training time",
        ),
    ]


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
