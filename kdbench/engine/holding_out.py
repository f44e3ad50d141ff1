"""Which training items are held out for validation, and whose labels may be used.

Of classes the same share of each, so that both sets look alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.engine.streams import generator


def divided(
    targets: Tensor, share: float, *, classes: bool
) -> tuple[Tensor | None, Tensor]:
    """Rows to train on, None for all, and rows to hold out (protocol rule 1).

    They are the same for every seed. Raises ValueError where a share above 0 is no
    item, or all of them.
    """
    if not share:
        return None, torch.zeros(0, dtype=torch.int64)
    order = torch.randperm(len(targets), generator=generator(0, "validation"))
    members = _members(targets, order, classes=classes)
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for part, count in zip(members, _counts(members, share), strict=True):
        mask[part[:count]] = True
    if not mask.any() or mask.all():
        many = "all" if mask.all() else "none"
        raise ValueError(
            f"validation = {share:g} holds out {many} of {len(mask)} items"
        )
    return torch.nonzero(~mask)[:, 0], torch.nonzero(mask)[:, 0]


def labelled(
    targets: Tensor, share: float, seed: int, *, classes: bool
) -> Tensor | None:
    """(N,) bool: the items whose labels may be used; None for all.

    A function of (seed, share) only, so that all semi-supervised strategies see the
    same labels; one item of each class at least.
    """
    if share >= 1:
        return None
    order = torch.randperm(len(targets), generator=generator(seed, "labelled"))
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for part in _members(targets, order, classes=classes):
        mask[part[: max(1, round(share * len(part)))]] = True
    return mask


def _members(targets: Tensor, order: Tensor, *, classes: bool) -> list[Tensor]:
    """The items of each class in this order; of what is no class, all of them."""
    if not classes:
        return [order]
    targets = targets.to(order.device)
    return [order[targets[order] == value] for value in torch.unique(targets)]


def _counts(members: list[Tensor], share: float) -> list[int]:
    """How many of each class: whole numbers nearest to its share, that add up to it.

    What is left after rounding down goes to the largest remainders.
    """
    exact = [share * len(part) for part in members]
    counts = [int(value) for value in exact]
    left = round(sum(exact)) - sum(counts)
    places = sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))
    for k in places[:left]:
        counts[k] += 1
    return counts
