"""Strategies that train on the teacher's hard labels."""

from kdbench import Strategy, hookimpl
from kdbench_pseudo_label.confident_pseudo_label import ConfidentPseudoLabel
from kdbench_pseudo_label.hard_pseudo_label import HardPseudoLabel


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Pseudo-label strategies, the simpler one first."""
    return [HardPseudoLabel, ConfidentPseudoLabel]
