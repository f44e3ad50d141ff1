"""The plugin offers what it promises, and every hyper-parameter is explained."""

import kdbench_mutual_learning
import pytest

from kdbench.testing import assert_described

STRATEGIES = kdbench_mutual_learning.kdbench_strategies()
NAMES = (
    "ensemble_kd dml born_again one byot takd okddip kdcl cs_kd ca_mkd split_transfer"
)


def test_names():
    assert " ".join(cls.name for cls in STRATEGIES) == NAMES
    assert {cls.family for cls in STRATEGIES} == {"mutual learning"}


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_every_strategy_is_described(cls):
    assert_described(cls)
