"""Numbers as text. None is "-", never 0."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.stats import Interval, Paired

MISSING = "-"
SIGNIFICANT = 0.05


def fixed(value: float | None, digits: int) -> str:
    """`digits` decimals, thousands apart."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, no exponent; thousands apart.

    >>> significant(0.012345), significant(12.345), significant(12345.0)
    ('0.0123', '12.3', '12,345')
    """
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    whole = len(f"{abs(value):.0f}") if abs(value) >= 1 else _leading_zeros(value)
    return f"{value:,.{max(0, digits - whole)}f}"


def _leading_zeros(value: float) -> int:
    return 1 + int(f"{value:e}".split("e")[1])


def scaled(value: float | None) -> str:
    """A count with k, M, G or T.

    >>> scaled(278_324), scaled(812)
    ('278 k', '812')
    """
    if value is None:
        return MISSING
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{significant(value / factor)} {prefix}"
    return f"{value:,.0f}"


def ratio(value: float | None) -> str:
    """A multiple: "1.43x"."""
    return MISSING if value is None else f"{value:.2f}x"


def times(value: float | None, more: str, less: str) -> str:
    """A multiple in words.

    >>> times(4.2, "smaller", "larger"), times(0.5, "faster", "slower")
    ('4.2x smaller', '2.0x slower')
    """
    if value is None or value <= 0:
        return MISSING
    if 0.995 < value < 1.005:
        return "same"
    word, factor = (more, value) if value > 1 else (less, 1 / value)
    return f"{factor:.{2 if factor < 1.2 else 1}f}x {word}"


def spread(
    found: Interval | Paired | None, digits: int, *, signed: bool = False
) -> str:
    """Mean ± half-width; the mean alone where the interval is unknown."""
    if found is None:
        return MISSING
    mean = f"{found.mean:{'+' if signed else ''}.{digits}f}"
    if float(mean) == 0:
        mean = mean.replace("-", "+" if signed else "")
    if found.half_width is None:
        return mean
    return f"{mean} ± {found.half_width:.{digits}f}"


def p_value(p: float | None) -> str:
    """The value, with "n.s." behind it at 0.05 and above.

    >>> p_value(0.0004), p_value(0.012), p_value(0.05), p_value(0.31)
    ('<0.001', '0.012', '0.05 n.s.', '0.31 n.s.')
    """
    if p is None:
        return MISSING
    if p >= SIGNIFICANT:
        return f"{p:.2f} n.s."
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def plural(n: int, noun: str) -> str:
    """The number with its noun: "1 seed", "3 seeds"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], between: str = ", ", most: int = 6) -> str:
    """Names with commas, of many the first and how many more.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], most=2)
    ('a, b, c', 'a, b and 2 more')
    """
    if len(names) <= most + 1:
        return between.join(names)
    return f"{between.join(names[:most])} and {len(names) - most} more"
