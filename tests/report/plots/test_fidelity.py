"""Agreement against top-1: marks and bars in their places, far ones listed."""

from __future__ import annotations

import numpy as np
import pytest

from kdbench.records import Headline
from kdbench.report.plots.fidelity import fidelity_plots
from kdbench.report.sections import sections


def fidelity(make, values, teacher=None):
    """values: label -> [(agreement, top1) of each seed]."""
    known = teacher or make.teacher()
    run = {"teacher_runs": (known.id,)}
    records = [
        make.record(label, seed, y, run=run, measures={"agreement": x, "top1": y})
        for label, pairs in values.items()
        for seed, (x, y) in enumerate(pairs)
    ]
    (section,) = sections(make.results(known, *records))
    return section


FIDELITY = {
    "scratch": [(80.0, 84.0), (82.0, 86.0)],
    "kd": [(88.0, 86.0), (90.0, 87.0)],
    "a": [(85.0, 88.0), (85.0, 89.0)],
    "b": [(84.0, 85.0), (84.5, 85.5)],
    "c": [(83.0, 83.0), (83.5, 84.0)],
}


def test_fidelity_shows_both_means_with_their_sd(make, look):
    section = fidelity(make, FIDELITY)
    (plot,) = fidelity_plots(section)
    assert (plot.kind, plot.stem) == ("fidelity", f"{section.slug}-fidelity")
    figure = look.draw(plot)
    (axes,) = figure.axes
    segments = [
        tuple(np.round(np.concatenate(line.get_data()).astype(float), 6))
        for line in axes.lines
        if len(line.get_xdata()) == 2
    ]
    for label, pairs in FIDELITY.items():
        mark, words = look.of(figure, f"{label}: agreement")
        (x, y), (sx, sy) = np.mean(pairs, axis=0), np.std(pairs, axis=0, ddof=1)
        assert look.at(mark) == pytest.approx((x, y))
        assert look.filled(mark) == (label in ("scratch", "kd"))
        assert tuple(np.round([x - sx, x + sx, y, y], 6)) in segments
        assert tuple(np.round([x, x, y - sy, y + sy], 6)) in segments
        assert f"{x:.2f} (sd {sx:.2f}) %, top-1 {y:.2f} (sd {sy:.2f}) %, n = 2" in words
    line, words = look.of(figure, "teacher: top-1")
    assert list(line.get_ydata()) == [90.0, 90.0]
    named = {text.get_text() for text in axes.texts}
    assert named == {"scratch", "kd", "a", "b"}  # c is in the middle
    assert "Stanton" in plot.caption
    assert "standard deviation" in plot.caption


def test_fidelity_lists_what_lies_far_beyond_the_frame(make, look):
    far = {"gone": [(11.0, 10.0)] * 2, "wrong": [(86.0, 9.0)] * 2}
    section = fidelity(make, {**FIDELITY, **far})
    (plot,) = fidelity_plots(section)
    figure = look.draw(plot)
    (axes,) = figure.axes
    assert axes.get_xlim()[0] > 60
    assert axes.get_ylim()[0] > 60
    (listed,) = [t.get_text() for t in axes.texts if "beyond" in t.get_text()]
    assert listed.splitlines()[1:] == ["gone 11.00, 10.00", "wrong 86.00, 9.00"]
    assert not [words for words in look.marks(figure) if words.startswith(tuple(far))]
    assert "beyond the frame" in plot.caption


def test_fidelity_of_one_seed_has_no_bars(make, look):
    one = {label: pairs[:1] for label, pairs in FIDELITY.items()}
    (plot,) = fidelity_plots(fidelity(make, one))
    assert "standard deviation" not in plot.caption
    assert "sd" not in look.of(look.draw(plot), "kd: agreement")[1]


def test_fidelity_of_each_head(make, look):
    headline = Headline(
        name="top1_colour",
        title="Top-1 (colour)",
        unit="%",
        gain_unit="points",
        better="higher",
    )
    measures = {
        "top1_colour": 80.0,
        "agreement_colour": 70.0,
        "top1_shape": 60.0,
        "agreement_shape": 50.0,
        "agreement_wrong_colour": 1.0,
    }
    records = [
        make.record(label, 0, 1.0, headline=headline, measures=measures)
        for label in ("kd", "a")
    ]
    (section,) = sections(make.results(*records))
    colour, shape = fidelity_plots(section)
    assert colour.stem.endswith("-fidelity-colour")
    assert shape.stem.endswith("-fidelity-shape")
    assert look.at(look.of(look.draw(colour), "a: ")[0]) == (70.0, 80.0)
    assert look.at(look.of(look.draw(shape), "a: ")[0]) == (50.0, 60.0)


def test_no_fidelity_without_agreement(make):
    (section,) = sections(make.standard())
    assert fidelity_plots(section) == []
