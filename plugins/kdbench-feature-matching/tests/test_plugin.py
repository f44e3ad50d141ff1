"""The plugin offers what it promises, and every hyper-parameter is explained."""

import dataclasses
import inspect
import pickle
import re

import kdbench_feature_matching
import pytest

from kdbench import Strategy, UserError

STRATEGIES = kdbench_feature_matching.kdbench_strategies()


def test_names():
    assert {cls.name for cls in STRATEGIES} == {"fitnet", "at", "sp", "rkd", "pkt"}


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_strategy_is_a_frozen_dataclass_with_its_source(cls: type[Strategy]):
    strategy = cls()
    assert cls.family == "feature matching"
    assert cls.paper
    assert pickle.loads(pickle.dumps(strategy)) == strategy  # noqa: S301 (our own)
    name = next(iter(cls.parameters()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(strategy, name, 1)


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_every_field_states_its_range_and_source(cls: type[Strategy]):
    source = inspect.getsource(cls)
    for name in cls.parameters():
        assert re.search(rf"^    {name}: \w+ = \S+  # .*(;|relative).+", source, re.M)


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_negative_weights_are_refused(cls: type[Strategy]):

    weights = [name for name in cls.parameters() if name.endswith("_weight")]
    assert weights
    for name in weights:
        with pytest.raises(UserError, match=f"{cls.name}: {name} must be >= 0"):
            cls.configured({name: -0.1})
