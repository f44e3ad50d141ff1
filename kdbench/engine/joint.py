"""One call of the optimiser's own function for the parameters of several learners.

The arithmetic and the state are those of each learner's optimiser, to the bit; what is
saved is asking for it once for every learner, which takes as long as the work itself
where students are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd


@dataclass(frozen=True)
class Share:
    """Some parameters of an optimiser, where their gradients lie, and its state."""

    optimiser: torch.optim.Optimizer
    parameters: Sequence[nn.Parameter]
    gradients: Sequence[Tensor]
    state: Sequence[dict[str, Any]]

    def take_up(self) -> None:
        """Add what backward passes have left at the parameters themselves."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is not None:
                gradient += parameter.grad
                parameter.grad = None


def share_of(
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
) -> Share | None:
    """These parameters' share; None where the optimiser has no state of them yet."""
    state = [optimiser.state.get(parameter) for parameter in parameters]
    known = [own for own in state if own and all(v is not None for v in own.values())]
    if len(known) < len(state):
        return None
    return Share(optimiser, parameters, gradients, known)


@torch.no_grad()
def step_together(shares: Sequence[Share], lr: float) -> None:
    """A step of optimisers of one kind and with one setting but for the rate."""
    [group] = shares[0].optimiser.param_groups
    parameters: list[Tensor] = [p for share in shares for p in share.parameters]
    gradients = [g for share in shares for g in share.gradients]
    state = [own for share in shares for own in share.state]
    if isinstance(shares[0].optimiser, torch.optim.Adam):
        adam(
            parameters,
            gradients,
            [own["exp_avg"] for own in state],
            [own["exp_avg_sq"] for own in state],
            [],
            [own["step"] for own in state],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=lr,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
    else:
        sgd(
            parameters,
            gradients,
            [own["momentum_buffer"] for own in state],
            fused=True,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=lr,
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
        )
