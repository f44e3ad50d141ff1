"""Two classifiers on the same test items: McNemar's test and a paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class McNemar:
    """How many items only the first, and only the second, gets right; exact p."""

    only_a: int
    only_b: int
    p_value: float


def unpack(correct: str, items: int) -> NDArray[np.bool_]:
    """(items,) whether each test item was right, from a record's `correct`.

    Raises ValueError where the bits are not those of so many items.
    """
    raise NotImplementedError


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test (two-sided binomial over the discordant items)."""
    raise NotImplementedError


def bootstrap_items(
    differences: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of (items,) differences, items resampled."""
    raise NotImplementedError
