"""The plugin offers what it promises, and every hyper-parameter is explained."""

import dataclasses
import inspect
import pickle
import re

import kdbench_text
import pytest

from kdbench import Strategy, UserError
from kdbench.config import read_suite

STRATEGIES = kdbench_text.kdbench_strategies()
each = pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)


def test_names():
    assert [cls.name for cls in STRATEGIES] == ["patient_kd", "tinybert_attention"]
    assert [d.name for d in kdbench_text.kdbench_datasets()] == ["sst2"]


def test_the_suite_names_what_exists():
    [file] = kdbench_text.kdbench_suites()
    suite = read_suite(file.path)
    assert suite.name == file.name == "sst2"
    assert suite.datasets == ("sst2",)
    assert {*suite.pairs} <= {pair.name for pair in kdbench_text.kdbench_pairs()}
    assert {"scratch", "kd", "patient_kd", "tinybert_attention"} <= {*suite.strategies}
    assert suite.seeds == 3


@each
def test_strategy_is_a_frozen_dataclass_with_its_source(cls: type[Strategy]):
    strategy = cls()
    assert cls.family == "BERT distillation"
    assert cls.paper
    assert pickle.loads(pickle.dumps(strategy)) == strategy  # noqa: S301 (our own)
    name = next(iter(cls.parameters()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(strategy, name, 1)


@each
def test_every_field_states_its_range_and_source(cls: type[Strategy]):
    source = inspect.getsource(cls)
    for name in cls.parameters():
        field = rf"^    {name}: [^=]+ = \S+  # .*;.+"
        assert re.search(field, source, re.M), name


@each
def test_negative_weights_are_refused(cls: type[Strategy]):
    weights = [name for name in cls.parameters() if name.endswith("_weight")]
    assert weights
    for name in weights:
        with pytest.raises(UserError, match=f"{cls.name}: {name} must be >= 0"):
            cls.configured({name: -0.1})
