"""From the last maps to the logits: average pooling, then a linear classifier."""

from torch import nn

from kdbench import Tapped

MAPS = "maps"
"""Tap of what is averaged to "pooled": maps (C, H, W), after any layers that follow
the last stage (batch norm and ReLU of a WRN, the last convolution of a MobileNetV2)."""


def why_no_head(model: Tapped | None) -> str | None:
    """For `supports`: a sentence unless the logits are linear in the averaged maps."""
    if model is None:
        return "there is no teacher"
    if not isinstance(model.part("pooled"), nn.Linear):
        return f"{model.name} has no linear classifier"
    maps, pooled = model.shapes.get(MAPS, (0,)), model.shapes["pooled"]
    if MAPS in model.shapes and (len(maps) not in (1, 3) or maps[:1] != pooled):
        return f"{model.name} classifies {pooled}, no average of its last maps {maps}"
    return None
