"""The plugin offers what it promises, and every hyper-parameter is explained."""

import kdbench_pseudo_label
import pytest

from kdbench.testing import assert_described

STRATEGIES = kdbench_pseudo_label.kdbench_strategies()
NAMES = (
    "hard_pseudo_label sharpened_pseudo_label noisy_student "
    "confident_pseudo_label meta_pseudo_labels"
)


def test_names():
    assert " ".join(cls.name for cls in STRATEGIES) == NAMES
    assert {cls.family for cls in STRATEGIES} == {"pseudo-label"}


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_every_strategy_is_described(cls):
    assert_described(cls)
