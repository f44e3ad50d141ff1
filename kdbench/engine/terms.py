"""A loss's named terms, checked, and their sum."""

from __future__ import annotations

from torch import Tensor


def total_of(terms: object) -> Tensor:
    """The sum of the named terms; says plainly what is wrong with them."""
    if not isinstance(terms, dict) or not terms:
        raise TypeError(f"loss() must return a dict of named terms, not {terms!r}")
    total: Tensor | None = None
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.dim() != 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value)
            raise TypeError(f"loss term {name!r} must be a scalar tensor, not {shape}")
        total = value if total is None else total + value
    assert total is not None  # noqa: S101 - terms is not empty
    if not total.requires_grad:
        raise TypeError(f"the loss terms {list(terms)} do not depend on the student")
    return total
