"""The plugin offers what it promises, and every hyper-parameter is explained."""

import kdbench_soft_targets
import pytest

from kdbench.testing import assert_described

STRATEGIES = kdbench_soft_targets.kdbench_strategies()
NAMES = "logit_mse kd wsld dkd dist nkd ctkd mlkd ttm logit_standardization"


def test_names():
    assert " ".join(cls.name for cls in STRATEGIES) == NAMES
    assert {cls.family for cls in STRATEGIES} == {"soft targets"}


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_every_strategy_is_described(cls):
    assert_described(cls)
