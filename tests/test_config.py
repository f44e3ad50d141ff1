"""Suite files and the selection grammar."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.config import changed, read_suite
from kdbench.selections import (
    label_of,
    parse_selection,
    split_selections,
    with_controls,
)

GOOD = """
datasets = ["digits"]
pairs = ["digits-mlp"]
strategies = ["kd"]
[recipe]
epochs = 3
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_suite_is_named_by_its_file(tmp_path):
    suite = read_suite(_written(tmp_path, GOOD))
    assert (suite.name, suite.seeds, suite.recipe.epochs) == ("mine", 3, 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("= 3", "= = 3"), "line 6"),
        (GOOD.replace("epochs", "epoch"), "line 6: unknown key 'recipe.epoch'"),
        (GOOD.replace("epochs", "epoch"), "did you mean 'epochs'"),
        (GOOD.replace("pairs", "pair"), "did you mean 'pairs'"),
        (GOOD + "lr = -1\n", "line 7: recipe.lr = -1"),
        ("seeds = 0\n" + GOOD, "line 1: seeds = 0"),
        (GOOD.replace('["kd"]', "[]"), "strategies"),
        (GOOD.replace('pairs = ["digits-mlp"]\n', ""), "key 'pairs' is missing"),
        ('name = "../up"\n' + GOOD, "becomes a folder"),
        ('define_pairs.a = { teacher = "x" }\n' + GOOD, "'define_pairs.a.student'"),
        ('define_pairs."a b" = {teacher="x", student="y"}\n' + GOOD, "no name"),
        (GOOD + "lr_by_model = { lenet = 0 }\n", "lenet = 0 is no learning rate"),
        (GOOD + "rand_augment = [2, 11]\n", "0 to 10"),
    ],
)
def test_mistakes_name_file_line_and_key(tmp_path, text, says):
    with pytest.raises(UserError) as caught:
        read_suite(_written(tmp_path, text))
    assert says in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_suite_defines_a_pair_in_two_lines(tmp_path):
    text = GOOD.replace("digits-mlp", "mine") + (
        'define_pairs.mine = { teacher = "convnet_32", student = "mlp_bn_8_8" }\n'
    )
    text = text.replace("[recipe]\nepochs = 3\n", "") + "[recipe]\nepochs = 3\n"
    suite = read_suite(_written(tmp_path, text))
    pair = suite.define_pairs["mine"].named("mine")
    assert (pair.teachers, pair.students) == (("convnet_32",), ("mlp_bn_8_8",))


def test_a_suite_extends_another_key_by_key(tmp_path):
    (tmp_path / "parent.toml").write_text(GOOD + "lr = 0.5\n")
    text = 'extends = "parent.toml"\nseeds = 5\n[recipe]\nepochs = 7\n'
    suite = read_suite(_written(tmp_path, text))
    assert (suite.name, suite.pairs, suite.seeds) == ("mine", ("digits-mlp",), 5)
    assert (suite.recipe.epochs, suite.recipe.lr) == (7, 0.5)


def test_an_extending_suite_keeps_its_parents_pairs(tmp_path):
    sides = 'define_pairs.NAME = { teacher = "convnet_32", student = "mlp_bn_8_8" }\n'
    (tmp_path / "parent.toml").write_text(sides.replace("NAME", "p") + GOOD)
    text = 'extends = "parent.toml"\n' + sides.replace("NAME", "q")
    suite = read_suite(_written(tmp_path, text))
    assert set(suite.define_pairs) == {"p", "q"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('extends = "nowhere.toml"', "no file of this name beside it"),
        ('extends = "mine.toml"', "extends itself"),
        ("extends = 3", "line 1: extends = 3"),
    ],
)
def test_what_cannot_be_extended_is_said(tmp_path, text, says):
    with pytest.raises(UserError) as caught:
        read_suite(_written(tmp_path, text + "\n" + GOOD))
    assert says in str(caught.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_suite(tmp_path / "none.toml")


def test_the_command_line_changes_suite_and_recipe(tmp_path):
    suite = changed(read_suite(_written(tmp_path, GOOD)), {"seeds": 5, "epochs": 9})
    assert (suite.seeds, suite.recipe.epochs) == (5, 9)
    with pytest.raises(UserError, match="seeds = 0"):
        changed(suite, {"seeds": 0})


def test_selections_multiply_values():
    found = parse_selection("kd[temperature=2,4,ce_weight=0.5]")
    assert [dict(s.params) for s in found] == [
        {"temperature": 2, "ce_weight": 0.5},
        {"temperature": 4, "ce_weight": 0.5},
    ]


def test_a_list_is_one_value():
    [found] = parse_selection("it[levels=[1,2],weight=3]")
    assert dict(found.params) == {"levels": [1, 2], "weight": 3}
    assert split_selections(["it[levels=[1,2],w=3],kd"]) == [
        "it[levels=[1,2],w=3]",
        "kd",
    ]


@pytest.mark.parametrize("text", ["kd[", "kd]2", "", "a b", "kd[2]", "kd[t=1,t=2]"])
def test_selections_not_understood_are_refused(text):
    with pytest.raises(UserError):
        parse_selection(text)


def test_commas_inside_brackets_do_not_split():
    assert split_selections(["a,b[x=1,2]", "c"]) == ["a", "b[x=1,2]", "c"]


def test_labels_name_only_what_differs_from_the_defaults():
    defaults = {"temperature": 4.0, "kd_weight": 0.9}
    assert label_of("kd", {"temperature": 4.0, "kd_weight": 0.9}, defaults) == "kd"
    assert label_of("kd", {"temperature": 2.0}, defaults) == "kd[temperature=2]"


def test_controls_are_added_once_and_first():
    assert with_controls(["at", "kd[temperature=2]"], ("scratch", "kd")) == [
        "scratch",
        "at",
        "kd[temperature=2]",
    ]


SYSTEMS = """
strategies = ["kd"]
seeds = 2
[recipe]
epochs = 3
lr = 0.5
[[systems]]
title = "one"
datasets = ["digits"]
pairs = ["digits-mlp", "digits-conv"]
[[systems]]
title = "two"
note = "by the way"
datasets = ["diabetes"]
pairs = ["split-mlp"]
strategies = ["dml"]
seeds = 5
recipe = { epochs = 7 }
"""


def test_a_system_states_only_what_differs(tmp_path):
    one, two = read_suite(_written(tmp_path, SYSTEMS)).parts
    assert (one.title, one.strategies, one.seeds) == ("one", ("kd",), 2)
    assert (one.recipe.epochs, one.recipe.lr) == (3, 0.5)
    assert (two.title, two.note, two.strategies) == ("two", "by the way", ("dml",))
    assert (two.seeds, two.recipe.epochs, two.recipe.lr) == (5, 7, 0.5)


def test_choices_hold_for_every_system_and_names_select_them(tmp_path):
    suite = read_suite(_written(tmp_path, SYSTEMS))
    one, two = changed(suite, {"epochs": 1, "strategies": ["dkd"]}).parts
    assert (one.recipe.epochs, two.recipe.epochs) == (1, 1)
    assert (one.strategies, two.strategies) == (("dkd",), ("dkd",))
    assert (one.recipe.lr, one.seeds, two.seeds) == (0.5, 2, 5)
    [only] = changed(suite, {"pairs": ["digits-conv"]}).parts
    assert (only.title, only.pairs) == ("one", ("digits-conv",))
    [only] = changed(suite, {"datasets": ["diabetes"], "seeds": 1}).parts
    assert (only.title, only.note, only.seeds) == ("two", "by the way", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SYSTEMS.replace("epochs = 7", "epoch = 7"), "did you mean 'epochs'"),
        (SYSTEMS.replace('note = "', 'notes = "'), r"line 13.*did you mean 'note'"),
        (
            SYSTEMS.replace('title = "two"\n', ""),
            r"'systems \(number 2\).title' is missing",
        ),
        (SYSTEMS.replace('"two"', '"one"'), "two systems have the title 'one'"),
        (SYSTEMS.partition("[[")[0] + "[systems]\ntitle = 'x'\n", r"write \[\[systems"),
        (
            SYSTEMS.replace('pairs = ["split-mlp"]\n', ""),
            "mine.toml: key 'pairs' of system 'two' is missing",
        ),
    ],
)
def test_what_is_wrong_in_a_system_is_named(tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        read_suite(_written(tmp_path, text))


def test_a_name_that_no_system_has_is_refused(tmp_path):
    suite = read_suite(_written(tmp_path, SYSTEMS))
    with pytest.raises(UserError, match=r"unknown pair 'digit-mlp'.*'digits-mlp'"):
        changed(suite, {"pairs": ["digit-mlp"]})
    with pytest.raises(UserError, match="has both"):
        changed(suite, {"pairs": ["digits-mlp"], "datasets": ["diabetes"]})
