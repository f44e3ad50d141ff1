"""Reliability diagrams: bins of all seeds together, none that is empty."""

from __future__ import annotations

import pytest

from kdbench.report.plots.calibration import calibration_plots, curves_of
from kdbench.report.sections import sections


def bins(*known, head=""):
    """Lists of five bins from (place, items, confidence, accuracy)."""
    count, confidence, accuracy = [0.0] * 5, [None] * 5, [None] * 5
    for place, *values in known:
        count[place], confidence[place], accuracy[place] = values
    head = f"_{head}" if head else ""
    return {
        f"calibration{head}_count": count,
        f"calibration{head}_confidence": confidence,
        f"calibration{head}_accuracy": accuracy,
    }


def calibrated(make, values, **teacher):
    """values: label -> [(top1, ece, lists) of each seed]."""
    known = make.teacher(**teacher)
    run = {"teacher_runs": (known.id,)}
    records = [
        make.record(
            label, seed, top1, run=run, lists=lists, measures={"top1": top1, "ece": ece}
        )
        for label, seeds in values.items()
        for seed, (top1, ece, lists) in enumerate(seeds)
    ]
    (section,) = sections(make.results(known, *records))
    return section


CALIBRATION = {
    "scratch": [(70.0, 4.0, bins((3, 50.0, 70.0, 60.0), (4, 50.0, 90.0, 80.0)))],
    "kd": [
        (75.0, 2.0, bins((2, 4.0, 50.0, 25.0), (4, 96.0, 92.0, 90.0))),
        (77.0, 5.0, bins((3, 60.0, 72.0, 70.0), (4, 40.0, 95.0, 97.5))),
    ],
    "worse": [(76.0, 9.0, bins((4, 100.0, 99.0, 76.0)))],
    "best": [(80.0, 1.0, bins((4, 100.0, 85.0, 80.0)))],
    "unknown": [(99.0, None, {})],
}


def test_calibration_pools_the_bins_of_all_seeds(make, look):
    section = calibrated(make, CALIBRATION, lists=bins((4, 100.0, 97.0, 90.0)))
    (plot,) = calibration_plots(section)
    assert (plot.kind, plot.stem) == ("calibration", f"{section.slug}-calibration")
    figure = look.draw(plot)
    upper, lower = figure.axes
    assert look.at(look.of(figure, "kd: confidence 50.0")[0]) == (50.0, 25.0)
    last, words = look.of(figure, "kd: confidence 92.9")
    assert look.at(last) == pytest.approx(
        ((96 * 92 + 40 * 95) / 136, (96 * 90 + 40 * 97.5) / 136)
    )
    assert words.endswith("136 items of 2 seeds (68.0 %)")
    found = [words.split(":")[0] for words in look.marks(figure)]
    counts = {label: found.count(label) for label in set(found)}
    assert counts == {"teacher": 1, "scratch": 2, "kd": 3, "best": 1}  # none empty
    legend = [text.get_text() for text in upper.get_legend().get_texts()]
    assert legend == [
        "teacher",
        "scratch, ECE 4.0 %",
        "kd, ECE 3.5 %",
        "best, ECE 1.0 %",
    ]
    assert "best: the best mean" in plot.caption
    assert "of all seeds together" in plot.caption
    shares = [patch.get_data().values for patch in lower.patches]
    assert list(shares[2]) == pytest.approx([0, 0, 2, 30, 68])
    assert all(sum(one) == pytest.approx(100) for one in shares)
    assert list(lower.patches[0].get_data().edges) == [0, 20, 40, 60, 80, 100]


def test_bins_of_few_items_are_hollow(make, look):
    section = calibrated(make, CALIBRATION)
    figure = look.draw(calibration_plots(section)[0])
    assert not look.filled(look.of(figure, "kd: confidence 50.0")[0])  # 4 items
    assert look.filled(look.of(figure, "kd: confidence 72.0")[0])  # 60
    assert not [words for words in look.marks(figure) if words.startswith("teacher")]


def test_calibration_of_each_head(make, look):
    lists = bins((4, 10.0, 90.0, 80.0), head="a_b") | bins(
        (1, 20.0, 30.0, 40.0), head="c"
    )
    section = calibrated(make, {"kd": [(80.0, None, lists)]})
    first, second = calibration_plots(section)
    assert first.stem.endswith("-calibration-a-b")
    assert second.stem.endswith("-calibration-c")
    (curve,) = curves_of(section, "c")
    assert [(b.number, b.items, b.accuracy) for b in curve.bins] == [(1, 20.0, 40.0)]
    assert look.at(look.of(look.draw(first), "kd: ")[0]) == (90.0, 80.0)


def test_no_calibration_without_bins(make):
    (section,) = sections(make.standard())
    assert calibration_plots(section) == []
