"""Two classifiers on the same test items: McNemar's test and a paired bootstrap.

Both speak of these trained networks on further test items. They say nothing of what
another training would give: that is what `seeds` is for.
"""

from __future__ import annotations

import base64
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

    >>> unpack("oA==", 3).tolist()
    [True, False, True]
    """
    import numpy as np

    packed = np.frombuffer(base64.b64decode(correct, validate=True), np.uint8)
    bits = np.unpackbits(packed).astype(np.bool_)
    if len(packed) != -(-items // 8) or bits[items:].any():
        raise ValueError(f"{len(packed)} bytes are not the bits of {items} test items")
    return bits[:items]


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test (two-sided binomial over the discordant items).

    p = min(1, 2 P(X <= min(only_a, only_b))), X ~ Binomial(only_a + only_b, 1/2); 1
    where no item is discordant. McNemar 1947, "Note on the sampling error of the
    difference between correlated proportions or percentages"; the exact form is the
    sign test over the discordant items. `a` and `b` are (items,); raises ValueError
    where their shapes differ.

    >>> import numpy as np
    >>> mcnemar(np.array([1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 1, 0], bool))
    McNemar(only_a=3, only_b=0, p_value=0.25)
    """
    from scipy import special

    if a.shape != b.shape:
        raise ValueError(f"items differ in number: {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    tail = float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, 2 * tail))


def bootstrap_items(
    differences: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of (items,) differences, items resampled.

    Efron & Tibshirani 1993, "An introduction to the bootstrap", section 13.3. What a
    resample of the items holds of each distinct difference is multinomial, so that is
    drawn: the same distribution, and fast where the differences have few distinct
    values (right or wrong, averaged over seeds). The time and the memory are those of
    resamples x distinct values. Raises ValueError for no items or a value that is not
    finite.
    """
    import numpy as np

    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError("the bootstrap needs items, each with a finite difference")
    values, counts = np.unique(differences, return_counts=True)
    items = len(differences)
    drawn = np.random.default_rng(seed).multinomial(items, counts / items, resamples)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn @ values / items, [tail, 1 - tail])
    return float(low), float(high)
