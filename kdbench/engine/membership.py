"""Who can be stacked: students that are chains of layers of one kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from kdbench.api import Outputs
from kdbench.engine.learner import Learner
from kdbench.models.chain import Chain, NoChainError, chain_of
from kdbench.models.taps import TappedModel


@dataclass
class Member:
    """A learner that can be stacked, and where in the chain its taps read."""

    learner: Learner
    student: TappedModel
    chain: Chain
    taps: dict[str, int]
    slot: int = 0

    def leaves(self, places: Sequence[Tensor]) -> dict[int, Tensor]:
        """Its copies (B, D) in float32 of what it reads, by place."""
        leaves = {}
        for at in {*self.taps.values(), len(places) - 1}:
            mine = places[at][self.slot].to(torch.float32, copy=True)
            leaves[at] = mine.contiguous().requires_grad_()
        return leaves

    def outputs(self, leaves: Mapping[int, Tensor]) -> Outputs:
        """Its answer, as its own student would give it."""
        features = {tap: leaves[at] for tap, at in self.taps.items()}
        logits = leaves[max(leaves)]
        return Outputs(logits, MappingProxyType(features), self.student.classifier)


def member_of(learner: Learner) -> Member | None:
    """The learner as a member of a stack, or None where it has to go alone."""
    student = learner.sole
    if not learner.recipe.stack or learner.failure is not None or student is None:
        return None
    parts = list(student.module.modules())
    hooks = sum(len(x._forward_hooks) + len(x._forward_pre_hooks) for x in parts)
    if hooks > len(student.paths):  # somebody else watches the layers
        return None
    if not all(p.requires_grad for p in student.module.parameters()):
        return None
    try:
        chain = chain_of(student.module, learner.feed.sample(2))
    except NoChainError:
        return None
    taps = {tap: chain.place_of(path) for tap, path in student.paths.items()}
    found = {tap: at for tap, at in taps.items() if at}
    if len(found) < len(taps):
        return None
    return Member(learner, student, chain, found)
