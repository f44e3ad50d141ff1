"""Strategies with several students or several teachers."""

from kdbench import Strategy, hookimpl
from kdbench_mutual_learning.dml import MutualLearning
from kdbench_mutual_learning.ensemble_kd import EnsembleKD
from kdbench_mutual_learning.split_transfer import SplitTransfer


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Mutual and ensemble learning."""
    return [EnsembleKD, MutualLearning, SplitTransfer]
