"""What a new plugin may be called: refused before anything is written, with advice."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from kdbench.api import UserError, hookimpl
from kdbench.plugins import Host
from kdbench.scaffold.naming import IMPORTED, LONGEST, names_of, refuse_taken
from kdbench.scaffold.writing import offered, rendered


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("my-kd", ("my-kd", "my_kd", "MyKd")),
        ("my_kd", ("my-kd", "my_kd", "MyKd")),
        ("kd2", ("kd2", "kd2", "Kd2")),
        ("x" * LONGEST, ("x" * LONGEST, "x" * LONGEST, "X" + "x" * (LONGEST - 1))),
    ],
)
def test_what_is_made_of_a_name(name, made):
    names = names_of(name)
    assert names.folder == name
    assert (names.distribution, names.module, names.capitalised) == made


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("MyKD", "try my_kd"),
        ("HTTPLoss2", "try http_loss2"),
        ("my kd", "try my_kd"),
        ("2stage", "try kd_2stage"),
        ("my__kd", "try my_kd"),
        ("-kd", "try kd"),
        ("../kd", "try kd"),
        ("kd/int8", "try kd_int8"),
        ("kd+at", "try kd_at"),
        ("méthode", "try m_thode"),
        ("", "such as my_kd"),
        ("___", "such as my_kd"),
    ],
)
def test_what_is_no_name_is_refused_with_a_near_one(name, advice):
    with pytest.raises(UserError, match="is no name for a plugin") as error:
        names_of(name)
    assert str(error.value).endswith(advice)
    if advice.startswith("try "):
        assert names_of(advice.removeprefix("try ")).module


def test_a_name_has_an_end():
    with pytest.raises(UserError, match=f"has {LONGEST + 1} characters.*{LONGEST} at"):
        names_of("x" * (LONGEST + 1))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("class", "a word of Python's"),
        ("json", "Python has a module json"),
        ("conftest", "mean something to pytest"),
        ("strategy", "a class Strategy is part of"),
    ],
)
def test_a_word_that_means_something_else_is_refused(name, why):
    with pytest.raises(UserError, match=f"{why}.*choose another name, such as my_"):
        names_of(name)


def test_the_class_of_a_strategy_hides_nothing_that_its_module_imports():
    module = rendered("strategy", names_of("my_kd"))["my_kd.py"]
    imported = {
        alias.name
        for node in ast.walk(ast.parse(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    capitalised = {name for name in imported if name[0].isupper()}
    assert capitalised == set(IMPORTED)


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("numpy", "strategy", "a distribution numpy .* is installed"),
        ("scikit-learn", "strategy", "a distribution scikit-learn .* would replace it"),
        ("sklearn", "strategy", "a module sklearn can be imported already"),
        ("kdbench", "strategy", "a distribution kdbench .* is installed"),
        ("kd", "strategy", "kdbench-soft-targets has a strategy kd"),
        ("digits", "strategy", "kdbench has a dataset digits"),
        ("top1", "measure", "kdbench has a measure top1"),
        ("soft_targets", "pair", "kdbench-soft-targets has a plugin of this name"),
    ],
)
def test_a_name_that_something_has_is_taken(host, name, kind, why):
    names = names_of(name)
    with pytest.raises(UserError, match=f"{name!r} is taken: {why}.*such as my_"):
        refuse_taken(names, offered(kind, names), host)


def test_the_models_of_a_pair_must_be_free_too(host):
    class Taken:
        __name__ = "taken"

        @hookimpl
        def kdbench_models(self):
            tiny = host.model("convnet_6")
            return [replace(tiny, name="quarter_student")]

    names = names_of("quarter")
    there = Host(found=[], modules=[Taken()])
    refuse_taken(names, offered("strategy", names), there)
    with pytest.raises(UserError, match="has a model quarter_student"):
        refuse_taken(names, offered("pair", names), there)


def test_a_name_that_nothing_has_is_free(host):
    names = names_of("my-kd")
    refuse_taken(names, offered("strategy", names), host)
