"""Strategies with several students, several teachers, or none."""

from kdbench import Strategy, hookimpl
from kdbench_mutual_learning.born_again import BornAgain
from kdbench_mutual_learning.byot import BeYourOwnTeacher
from kdbench_mutual_learning.ca_mkd import ConfidenceAwareKD
from kdbench_mutual_learning.cs_kd import ClassWiseSelfKD
from kdbench_mutual_learning.dml import MutualLearning
from kdbench_mutual_learning.ensemble_kd import EnsembleKD
from kdbench_mutual_learning.kdcl import CollaborativeLearning
from kdbench_mutual_learning.okddip import DiversePeers
from kdbench_mutual_learning.one import NativeEnsemble
from kdbench_mutual_learning.split_transfer import SplitTransfer
from kdbench_mutual_learning.takd import TeacherAssistant


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Mutual, ensemble, stepwise and self-distillation, in order of publication."""
    return [
        EnsembleKD,
        MutualLearning,
        BornAgain,
        NativeEnsemble,
        BeYourOwnTeacher,
        TeacherAssistant,
        DiversePeers,
        CollaborativeLearning,
        ClassWiseSelfKD,
        ConfidenceAwareKD,
        SplitTransfer,
    ]
