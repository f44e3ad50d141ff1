"""The grammar of selections: sums, presets, lists, and what is malformed."""

from __future__ import annotations

import pytest

from kdbench.api import UserError
from kdbench.selections import (
    label_of,
    parse_selection,
    split_selections,
    with_controls,
)


def test_a_sum_names_its_parts_parameters():
    [found] = parse_selection("kd+fitnet[weight=2, hint_stage=1]")
    assert found.name == "kd+fitnet"
    assert dict(found.params) == {"fitnet.weight": 2, "fitnet.hint_stage": 1}
    assert found.presets == {}


def test_a_preset_stands_behind_the_name():
    [found] = parse_selection("dkd@authors[ce_weight=2]")
    assert (found.name, dict(found.params)) == ("dkd", {"ce_weight": 2})
    assert found.presets == {"dkd": "authors"}
    [found] = parse_selection(" kd + dkd@authors ")
    assert (found.name, found.presets) == ("kd+dkd", {"dkd": "authors"})


def test_values_multiply_across_the_parts_of_a_sum():
    found = parse_selection("kd[temperature=2,4]+at[weight=1,3]")
    assert [tuple(s.params.values()) for s in found] == [(2, 1), (2, 3), (4, 1), (4, 3)]
    assert {s.name for s in found} == {"kd+at"}


def test_signs_and_lists_inside_brackets_are_values():
    [found] = parse_selection("it[x=1e+2,levels=[1,2]]+kd[temperature=+4]")
    assert dict(found.params) == {
        "it.x": 100.0,
        "it.levels": [1, 2],
        "kd.temperature": "+4",
    }


def test_a_list_may_stand_last_among_several_selections():
    texts = ["kd[temperature=2,4]+it[w=3,levels=[1,[2,3]]],at,it[levels=[1]]"]
    assert split_selections(texts) == [
        "kd[temperature=2,4]+it[w=3,levels=[1,[2,3]]]",
        "at",
        "it[levels=[1]]",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "kd+",
        "+kd",
        "kd++at",
        "kd@",
        "@authors",
        "kd@a@b",
        "kd[t=1]@a",
        "kd[t=1]at",
        "kd+at[2]",
        "kd+at[w=1,w=2]",
        "kd]+[at",
        "kd[t=1]]",
        "kd[[t=1]",
        "kd[=1]",
        "kd[t=1][u=2]",
    ],
)
def test_malformed_texts_are_refused(text):
    with pytest.raises(UserError, match="strategy"):
        parse_selection(text)


@pytest.mark.parametrize(
    "text",
    [
        "kd+fitnet[weight=2]",
        "dkd@authors[ce_weight=2]",
        "kd@a+at[weight=0->1]+sp@b",
        "kd[temperature=2]+dkd@authors",
    ],
)
def test_a_label_is_what_was_written(text):
    [found] = parse_selection(text)
    assert label_of(found.name, found.params, {}, found.presets) == text


def test_a_label_leaves_out_defaults_part_by_part():
    defaults = {"kd.weight": 1.0, "kd.temperature": 4.0, "kd2.weight": 1.0}
    values = {"kd.weight": 1.0, "kd.temperature": 4.0, "kd2.weight": 3.0}
    assert label_of("kd+kd2", values, defaults) == "kd+kd2[weight=3]"


@pytest.mark.parametrize(
    ("texts", "added"),
    [
        (["kd"], ["scratch"]),
        (["kd[temperature=2]"], ["scratch"]),
        (["kd[temperature=4->1]"], ["scratch", "kd"]),
        (["kd@authors", "scratch"], ["kd"]),
        (["kd+fitnet"], ["scratch", "kd"]),
    ],
)
def test_a_ramp_a_preset_and_a_sum_are_no_controls(texts, added):
    assert with_controls(texts, ("scratch", "kd")) == added + texts
