"""What strategies with few labels share: means over a part of the batch, and ranges."""

from torch import Tensor

from kdbench import Strategy


def masked_mean(each: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B,) values where (B,) bool `mask`: a scalar, 0 if that is nowhere."""
    return (each * mask).sum() / mask.sum().clamp(min=1)


def ramp_up(ramp: float, progress: float) -> float:
    """Linear from 0 to 1 over the first `ramp` of the training, then 1."""
    return min(1.0, progress / ramp) if ramp else 1.0


def refuse_bad_shares(strategy: Strategy, *names: str) -> None:
    """Raise ValueError, naming the field, unless each is in [0, 1].

    `label_fraction` must be above 0 too.
    """
    for name in names:
        value = getattr(strategy, name)
        floor = "(" if name == "label_fraction" else "["
        if not 0 <= value <= 1 or (floor == "(" and value == 0):
            raise ValueError(f"{name} must be in {floor}0, 1], not {value}")
