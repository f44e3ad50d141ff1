"""Which inputs the keyword nets take."""

from __future__ import annotations

SMALLEST = 8
"""Bands and frames that leave more than one place after the stem."""


def refuse_other_shapes(model: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless inputs are (1, mels, frames), both at least 8."""
    if len(shape) != 3 or shape[0] != 1 or min(shape[1:]) < SMALLEST:
        raise ValueError(
            f"{model} needs inputs of (1, mels, frames), both at least {SMALLEST}, "
            f"not {tuple(shape)}"
        )
