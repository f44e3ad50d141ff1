"""Strategies that learn from the teacher's outputs."""

from kdbench import Strategy, hookimpl
from kdbench_soft_targets.ctkd import CurriculumTemperature
from kdbench_soft_targets.dist import Dist
from kdbench_soft_targets.dkd import DecoupledKD
from kdbench_soft_targets.kd import SoftTargets
from kdbench_soft_targets.logit_mse import LogitMSE
from kdbench_soft_targets.logit_standardization import LogitStandardization
from kdbench_soft_targets.mlkd import MultiLevelLogit
from kdbench_soft_targets.nkd import NormalisedKD
from kdbench_soft_targets.ttm import TransformedTeacher
from kdbench_soft_targets.wsld import WeightedSoftLabels


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Soft-target strategies, in order of publication."""
    return [
        LogitMSE,
        SoftTargets,
        WeightedSoftLabels,
        DecoupledKD,
        Dist,
        NormalisedKD,
        CurriculumTemperature,
        MultiLevelLogit,
        TransformedTeacher,
        LogitStandardization,
    ]
