"""What this family's hyper-parameters may be."""

from collections.abc import Iterable


def refuse_negative(strategy: object, names: Iterable[str]) -> None:
    """Raise ValueError, naming the field, unless each of these is >= 0."""
    for name in names:
        value = getattr(strategy, name)
        if not value >= 0:  # so that nan is refused too
            raise ValueError(f"{name} must be >= 0, not {value}")


def refuse_bad_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is > 0."""
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, not {temperature}")
