"""Strategies that match the teacher's class distribution."""

from kdbench import Strategy, hookimpl
from kdbench_soft_targets.dist import Dist
from kdbench_soft_targets.dkd import DecoupledKD
from kdbench_soft_targets.kd import SoftTargets
from kdbench_soft_targets.logit_mse import LogitMSE
from kdbench_soft_targets.logit_standardization import LogitStandardization


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Soft-target strategies, in order of publication."""
    return [SoftTargets, LogitMSE, DecoupledKD, Dist, LogitStandardization]
