"""Strategies that match the teacher's inner representations."""

from kdbench import Strategy, hookimpl
from kdbench_feature_matching.at import AttentionTransfer
from kdbench_feature_matching.fitnet import FitNet
from kdbench_feature_matching.pkt import ProbabilisticTransfer
from kdbench_feature_matching.rkd import RelationalKD
from kdbench_feature_matching.sp import SimilarityPreserving


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Feature-matching strategies, in order of publication."""
    return [
        FitNet,
        AttentionTransfer,
        ProbabilisticTransfer,
        RelationalKD,
        SimilarityPreserving,
    ]
