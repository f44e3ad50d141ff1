"""Stages pair up by a stated rule or not at all."""

import pytest
from kdbench_feature_matching.matching import match_stages


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
