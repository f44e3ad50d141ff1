"""Structured pruning: the teacher's own network with fewer channels.

Li et al. 2017, arXiv:1608.08710: filters with a small norm go, at one ratio for every
layer and independently of what goes elsewhere. Which layers must shrink together is
found by torch-pruning's dependency graph: Fang et al. 2023, arXiv:2301.12900.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch_pruning
from torch import nn

from kdbench import Model, UserError
from kdbench.api import Shape
from kdbench_compression.inherit import inherited, refuse_unfit

Prune = Callable[[nn.Module, Shape], nn.Module]


def pruned(base: Model, ratio: float, norm: Literal[1, 2] = 1) -> Model:
    """The model `<base>_pruned_<percent>`: `base` without this share of its channels.

    0 <= `ratio` < 1 is the share that goes, of every layer but the classifier, whose
    outputs stay, as the inputs do; `norm` is 1 or 2 (then the name ends in `_l2`). What
    stays of a trained teacher is what has the largest norm; `build` gives the same
    architecture without one. Raises UserError for another ratio or an unfit model.
    """
    if not 0 <= ratio < 1:
        raise UserError(
            f"pruning {base.name}: ratio {ratio} must be >= 0 and < 1; it is the share "
            "of channels that goes"
        )
    refuse_unfit(base, "pruned")
    name = f"{base.name}_pruned_{100 * ratio:g}" + ("_l2" if norm == 2 else "")
    prune = partial(_prune, classifier=base.classifier, ratio=ratio, norm=norm)
    return dataclasses.replace(
        base,
        name=name,
        summary=f"{base.name} without {100 * ratio:g}% of each layer's channels",
        build=partial(_build, base, prune),
        from_teacher=partial(_from_teacher, base, prune),
    )


def _build(base: Model, prune: Prune, input_shape: Shape, outputs: int) -> nn.Module:
    # The dependency graph is traced by autograd, which needs a real device.
    wanted = torch.get_default_device()
    with torch.device("cpu"):
        network = prune(base.build(input_shape, outputs), input_shape)
    return network.to(wanted)


def _from_teacher(
    base: Model, prune: Prune, teacher: nn.Module, input_shape: Shape, outputs: int
) -> nn.Module:
    return prune(inherited(base, teacher, input_shape, outputs), input_shape)


def _prune(
    network: nn.Module, input_shape: Shape, classifier: str, ratio: float, norm: int
) -> nn.Module:
    """The network itself, made narrower in place; every part keeps its module path."""
    for path, layer in network.named_modules():
        prunable = isinstance(layer, nn.Conv2d | nn.Linear) and path != classifier
        width = len(layer.weight) if prunable else 0
        # torch-pruning would leave such a layer whole
        if width and int((1 - ratio) * width) == 0:
            raise UserError(
                f"pruning {100 * ratio:g}% of the {width} channels of layer {path!r} "
                "leaves none; choose a smaller ratio"
            )
    network.requires_grad_().eval()  # batch norm must not learn from the trace
    importance = torch_pruning.importance.GroupMagnitudeImportance(
        p=norm, group_reduction="first", normalizer=None
    )
    with torch.enable_grad():
        pruner = torch_pruning.pruner.BasePruner(
            network,
            torch.zeros(1, *input_shape),
            importance=importance,
            pruning_ratio=ratio,
            ignored_layers=[network.get_submodule(classifier)],
        )
        pruner.step()
    return network.train()
