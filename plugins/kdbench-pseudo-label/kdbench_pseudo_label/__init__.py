"""Strategies that train on labels given by a teacher."""

from kdbench import Strategy, hookimpl
from kdbench_pseudo_label.confident_pseudo_label import ConfidentPseudoLabel
from kdbench_pseudo_label.hard_pseudo_label import HardPseudoLabel
from kdbench_pseudo_label.meta_pseudo_labels import MetaPseudoLabels
from kdbench_pseudo_label.noisy_student import NoisyStudent
from kdbench_pseudo_label.sharpened_pseudo_label import SharpenedPseudoLabel


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Pseudo-label strategies, in order of publication."""
    return [
        HardPseudoLabel,
        SharpenedPseudoLabel,
        NoisyStudent,
        ConfidentPseudoLabel,
        MetaPseudoLabels,
    ]
