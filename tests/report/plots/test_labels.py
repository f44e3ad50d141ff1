"""Labels of marks: apart from each other, and clear about what they name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from kdbench.report.plots.labels import place_labels
from kdbench.report.plots.style import shorten, styled


def boxes_of(axes):
    """The boxes of the words alone, without lines to their marks."""
    for text in axes.texts:
        text.get_window_extent()  # finds its place
    return [Text.get_window_extent(text) for text in axes.texts]


@pytest.mark.parametrize("edge", [0.02, 0.2])
def test_labels_keep_apart_and_inside(edge):
    points = [
        tuple(at) for at in np.random.default_rng(5).uniform(edge, 1 - edge, (12, 2))
    ]

    with styled():
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        labels = [(x, y, f"model_{i}\nby strategy") for i, (x, y) in enumerate(points)]
        place_labels(figure, axes, labels, points)
        boxes = boxes_of(axes)
    frame = axes.get_window_extent()
    assert len(boxes) == len(points)
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_a_label_nearer_to_another_mark_has_a_line_to_its_own():
    points = np.random.default_rng(5).normal(0.5, 0.07, (60, 2))
    with styled():
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        labels = [(*at, "strategy") for at in points[:12]]
        place_labels(figure, axes, labels, [tuple(at) for at in points])
        at = axes.transData.transform(points)
        boxes = [box.extents for box in boxes_of(axes)]
    lines = misleading = 0
    for i, (text, box) in enumerate(zip(axes.texts, boxes, strict=True)):
        gaps = np.hypot(*np.maximum(np.maximum(box[:2] - at, at - box[2:]), 0).T)
        lines += text.arrow_patch is not None
        far = math.hypot(*text.xyann) > 18
        if gaps.argmin() != i or far:
            misleading += not far
            assert text.arrow_patch is not None
            assert text.xy == tuple(points[i])
    assert misleading > 0
    assert lines < 12


def test_marks_at_one_place_need_no_line():
    with styled():
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        here = (0.5, 0.5)
        place_labels(figure, axes, [(*here, "a")], [here, here], [(0.52, 0.5)])
    assert axes.texts[0].arrow_patch is None


def test_long_labels_that_differ_at_their_end_stay_apart():
    a, b = (f"feature_distance[layer=stage3,weight=0.{k}]" for k in (5, 9))
    assert shorten(a, 22) != shorten(b, 22)
    assert [len(shorten(a, n)) for n in (22, 23, 80)] == [22, 23, len(a)]
    assert shorten(a, 22).startswith("feature_dis")


def placed(labels, dots, along=()):
    with styled():
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(figure, axes, labels, dots, along)
    return axes


def test_a_label_keeps_off_a_line():
    along = [(0.51 + k / 100, 0.5) for k in range(12)]
    axes = placed([(0.5, 0.5, "strategy")], [(0.5, 0.5)], along)
    (box,) = boxes_of(axes)
    assert not any(box.contains(*axes.transData.transform(at)) for at in along)


def test_labels_far_from_their_mark_have_a_line():
    axes = placed([(0.5, 0.5, "a strategy")] * 10, [(0.5, 0.5)] * 10)
    far = [math.hypot(*text.xyann) > 18 for text in axes.texts]
    assert any(far)
    assert [text.arrow_patch is not None for text in axes.texts] == far
