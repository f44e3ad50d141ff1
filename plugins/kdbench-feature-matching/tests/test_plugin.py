"""The plugin offers what it promises, and every hyper-parameter is explained."""

import kdbench_feature_matching
import pytest

from kdbench.testing import assert_described

STRATEGIES = kdbench_feature_matching.kdbench_strategies()
NAMES = (
    "fitnet at nst fsp ft kdsvd pkt ab rkd vid sp cc irg ofd crd srrl semckd "
    "reviewkd simkd mgd cat_kd"
)


def test_names():
    assert " ".join(cls.name for cls in STRATEGIES) == NAMES
    assert {cls.family for cls in STRATEGIES} == {"feature matching"}


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_every_strategy_is_described(cls):
    assert_described(cls)
