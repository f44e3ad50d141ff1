"""Strategies that match the teacher's inner representations."""

from kdbench import Strategy, hookimpl
from kdbench_feature_matching.ab import ActivationBoundaries
from kdbench_feature_matching.at import AttentionTransfer
from kdbench_feature_matching.cat_kd import ClassAttention
from kdbench_feature_matching.cc import CorrelationCongruence
from kdbench_feature_matching.crd import ContrastiveDistillation
from kdbench_feature_matching.fitnet import FitNet
from kdbench_feature_matching.fsp import SolutionFlow
from kdbench_feature_matching.ft import FactorTransfer
from kdbench_feature_matching.irg import InstanceRelationshipGraph
from kdbench_feature_matching.kdsvd import SingularVectors
from kdbench_feature_matching.mgd import MaskedGeneration
from kdbench_feature_matching.nst import NeuronSelectivity
from kdbench_feature_matching.ofd import FeatureOverhaul
from kdbench_feature_matching.pkt import ProbabilisticTransfer
from kdbench_feature_matching.reviewkd import KnowledgeReview
from kdbench_feature_matching.rkd import RelationalKD
from kdbench_feature_matching.semckd import SemanticCalibration
from kdbench_feature_matching.simkd import ReusedClassifier
from kdbench_feature_matching.sp import SimilarityPreserving
from kdbench_feature_matching.srrl import SoftmaxRegression
from kdbench_feature_matching.vid import VariationalInformation


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Feature-matching strategies, in order of publication."""
    return [
        FitNet,
        AttentionTransfer,
        NeuronSelectivity,
        SolutionFlow,
        FactorTransfer,
        SingularVectors,
        ProbabilisticTransfer,
        ActivationBoundaries,
        RelationalKD,
        VariationalInformation,
        SimilarityPreserving,
        CorrelationCongruence,
        InstanceRelationshipGraph,
        FeatureOverhaul,
        ContrastiveDistillation,
        SoftmaxRegression,
        SemanticCalibration,
        KnowledgeReview,
        ReusedClassifier,
        MaskedGeneration,
        ClassAttention,
    ]
