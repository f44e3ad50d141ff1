"""Stages pair up by a stated rule or not at all."""

import pytest
from kdbench_feature_matching.matching import (
    match_stages,
    stage_pairs,
    stage_shapes,
    why_no_like_stages,
    why_no_maps,
    why_no_stages,
)
from torch import nn

from kdbench import Tapped


def stages(*sizes):
    return {f"stage{i}": (8, s, s) for i, s in enumerate(sizes, start=1)}


def test_equal_counts_pair_up_in_order():
    expected = [("stage1", "stage1"), ("stage2", "stage2")]
    assert match_stages(stages(32, 16), stages(16, 4)) == expected
    assert match_stages({"stage1": (5,)}, {"stage1": (9,)}) == expected[:1]


def test_other_counts_pair_up_with_the_last_of_their_size():
    expected = [("stage1", "stage2"), ("stage2", "stage4")]
    assert match_stages(stages(32, 8), stages(32, 32, 16, 8)) == expected
    expected = [("stage1", "stage1"), ("stage2", "stage1"), ("stage3", "stage2")]
    assert match_stages(stages(32, 32, 8), stages(32, 8)) == expected


@pytest.mark.parametrize("teacher", [(32, 16, 4), (32,), ()])
def test_no_rule_is_an_error_that_names_both_lists(teacher):
    with pytest.raises(ValueError, match="no rule") as error:
        match_stages(stages(32, 8), stages(*teacher))
    assert "student stage1 (8, 32, 32), stage2 (8, 8, 8)" in str(error.value)
    assert f"teacher {'stage1 (8, 32, 32)' if teacher else 'none'}" in str(error.value)


def test_vectors_have_no_size_to_match_by():
    with pytest.raises(ValueError, match="no rule"):
        match_stages({"stage1": (32, 32)}, {"stage1": (32, 32), "stage2": (32, 32)})


def tapped(name, shapes):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def test_shapes_and_features_pair_up_alike(given):
    student, teacher = stages(4, 2), stages(4, 4, 2)
    shapes = stage_shapes(tapped("s", student), tapped("t", teacher))
    assert shapes == [((8, 4, 4), (8, 4, 4)), ((8, 2, 2), (8, 2, 2))]
    batch = given.batch(student_shapes=student, teacher_shapes=teacher)
    pairs = stage_pairs(batch.student, batch.teacher)
    assert [(tuple(s.shape[1:]), tuple(t.shape[1:])) for s, t in pairs] == shapes
    assert pairs[0][1] is batch.teacher.features["stage2"]


CONV = tapped("conv", stages(4, 2))
DENSE = tapped("dense", {"stage1": (8,), "stage2": (6,)})
ALL = (why_no_stages, why_no_maps, why_no_like_stages)


@pytest.mark.parametrize("why", ALL)
def test_every_reason_wants_a_teacher_and_stages_that_match(why):
    assert why(CONV, tapped("other", stages(4, 2))) is None
    assert why(CONV, None) == "there is no teacher"
    assert why(tapped("bare", {}), CONV) == "bare has no stages"
    assert why(CONV, tapped("bare", {})) == "bare has no stages"
    assert "no rule matches" in why(CONV, tapped("odd", stages(32)))


def test_reasons_differ_on_vectors():
    assert [why(DENSE, DENSE) for why in ALL[::2]] == [None, None]
    assert why_no_maps(DENSE, DENSE) == "stage1 of dense is no map (C, H, W): (8,)"
    assert why_no_maps(CONV, DENSE) == "stage1 of dense is no map (C, H, W): (8,)"
    assert why_no_like_stages(CONV, DENSE) == (
        "stage1 of conv and stage1 of dense must both be maps (C, H, W) or both "
        "vectors (D,): (8, 4, 4) and (8,)"
    )
