"""Magnitude pruning: the smallest weights become zero, and stay zero.

Han et al. 2015, arXiv:1506.02626: of a trained network, the weights below a threshold
go, and what stays is trained further. Here the threshold is one for the whole network,
the "global magnitude pruning" of Blalock et al. 2020, arXiv:2003.03033: layers lose
unequal shares. The shapes stay: dense kernels take as long as before, and a file has as
many bytes until it is compressed.
"""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdbench import Model, UserError
from kdbench.api import Shape

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def magnitude_pruned(base: Model, share: float) -> Model:
    """The model `<base>/magnitude_<percent>`: a student with this share of zeros.

    0 < `share` < 1, of the weights of all dense layers and convolutions together, the
    classifier's too; biases and batch norm stay whole. `from_teacher` is handed a
    trained `base`. Raises UserError for another share or an unfit model.
    """
    if not 0 < share < 1:
        raise UserError(
            f"pruning {base.name}: share {share} must be > 0 and < 1; it is the share "
            "of weights that become zero"
        )
    if base.learner != "gradient":
        raise UserError(f"{base.name} has no weights to prune: it is no network")
    if base.deploy not in (None, made_permanent):
        raise UserError(
            f"{base.name} cannot be pruned: it is deployed as another network; let it "
            "be pruned first"
        )
    percent = f"{100 * share:g}"
    return dataclasses.replace(
        base,
        name=f"{base.name}/magnitude_{percent}",
        summary=f"{base.summary}; the {percent}% smallest weights zero",
        from_teacher=partial(_from_student, share),
        deploy=made_permanent,
    )


def made_permanent(network: nn.Module) -> nn.Module:
    """A copy with its zeros as plain weights, in the architecture of the base."""
    copy = deepcopy(network)
    for layer in list(copy.modules()):
        if isinstance(layer, Layer) and _is_masked(layer):
            weight = nn.Parameter(layer.weight.detach())
            # not remove_parametrizations: it takes `weight` from the class, and so
            # from the network that this is a copy of
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            layer.weight = weight
    return copy


def _from_student(
    share: float, student: nn.Module, _input_shape: Shape, _outputs: int
) -> nn.Module:
    """A copy of the student whose smallest weights are masked.

    Of weights as small as each other so many go that their number is exact.
    """
    network = deepcopy(student)
    layers = [x for x in network.modules() if isinstance(x, Layer) and _is_own(x)]
    if not layers:
        raise UserError(
            f"{type(student).__name__} has no dense layer or convolution to prune"
        )
    every = torch.cat([layer.weight.detach().flatten().cpu() for layer in layers])
    kept = torch.ones_like(every)
    kept[every.abs().topk(round(share * len(every)), largest=False).indices] = 0
    masks = torch.split(kept, [layer.weight.numel() for layer in layers])
    for layer, mask in zip(layers, masks, strict=True):
        own = mask.view(layer.weight.shape).to(layer.weight.device)
        parametrize.register_parametrization(layer, "weight", Masked(own))
    return network


def _is_own(layer: Layer) -> bool:
    """Whether its weight is not computed from others."""
    plain = isinstance(layer.weight, nn.Parameter)
    return plain and not parametrize.is_parametrized(layer)


def _is_masked(layer: Layer) -> bool:
    parts = getattr(layer, "parametrizations", {})
    return "weight" in parts and isinstance(parts["weight"][0], Masked)


class Masked(nn.Module):
    """What a layer computes with: its weights times a mask of zeros and ones.

    Zeros stay whatever an optimiser does, with momentum or weight decay, too.
    """

    def __init__(self, mask: Tensor):
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask
