"""What a paired t-test over so many seeds can show."""

from __future__ import annotations


def detectable(
    sd: float, n: int, power: float = 0.8, level: float = 0.05
) -> float | None:
    """Smallest true mean difference that is found with this power; None for n < 2.

    `sd` is that of the paired differences; two-sided test at `level`.
    """
    raise NotImplementedError


def seeds_needed(
    sd: float, difference: float, power: float = 0.8, level: float = 0.05
) -> int | None:
    """Fewest seeds that find a true mean difference with this power.

    None where more than 10,000 would be needed.
    """
    raise NotImplementedError
