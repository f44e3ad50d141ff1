"""What this family's hyper-parameters may be."""


def refuse_fewer_than(least: int, strategy: object, name: str) -> None:
    """Raise ValueError, naming the field, unless it is a number >= least."""
    value = getattr(strategy, name)
    if value < least:
        raise ValueError(f"{name} must be >= {least}, not {value}")
