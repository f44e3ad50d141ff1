"""What this family's hyper-parameters may be."""

from collections.abc import Iterable


def refuse_negative(strategy: object, names: Iterable[str]) -> None:
    """Raise ValueError, naming the field, unless each of these is >= 0."""
    for name in names:
        value = getattr(strategy, name)
        if not value >= 0:  # so that nan is refused too
            raise ValueError(f"{name} must be >= 0, not {value}")


def refuse_fewer_than_two(strategy: object, name: str) -> None:
    """Raise ValueError, naming the field, unless it is a number of models >= 2."""
    value = getattr(strategy, name)
    if value < 2:
        raise ValueError(f"{name} must be >= 2, not {value}")
