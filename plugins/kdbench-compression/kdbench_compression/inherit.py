"""A student that begins as a copy of the pair's trained teacher."""

from __future__ import annotations

import torch
from torch import nn

from kdbench import Model, UserError
from kdbench.api import Shape


def refuse_unfit(base: Model, what: str) -> None:
    """UserError unless the model is a plain network of images or vectors."""
    if base.tokens or base.learner != "gradient":
        reads = "reads tokens" if base.tokens else "learns without gradients"
        raise UserError(f"{base.name} cannot be {what}: it {reads}")
    if base.deploy is not None:
        raise UserError(
            f"{base.name} cannot be {what}: it is deployed as another network; "
            f"let it be {what} first"
        )


def inherited(
    base: Model, teacher: nn.Module, input_shape: Shape, outputs: int
) -> nn.Module:
    """A copy of the teacher on the CPU.

    Built anew and loaded, so that nothing hooked onto the teacher comes along. Raises
    UserError where the teacher is not a `base`.
    """
    with torch.device("cpu"):
        copy = base.build(input_shape, outputs)
    try:
        copy.load_state_dict(teacher.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"a student made from {base.name} needs a trained {base.name}, and the "
            f"pair's teacher has other weights; name {base.name} as the pair's teacher"
        ) from error
    return copy
