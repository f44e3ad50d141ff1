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
    mask = _drawn(targets, order, share, classes=classes, least=0)
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
    return _drawn(targets, order, share, classes=classes, least=1)


def _drawn(
    targets: Tensor, order: Tensor, share: float, *, classes: bool, least: int
) -> Tensor:
    targets = targets.to(order.device)
    members = [order]
    if classes:
        members = [order[targets[order] == value] for value in torch.unique(targets)]
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for part in members:
        mask[part[: max(least, round(share * len(part)))]] = True
    return mask
