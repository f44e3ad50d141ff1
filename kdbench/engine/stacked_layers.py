"""Layers of several networks computed as one, forward and backward.

Each takes and gives (K, B, D), a slice for each of the K networks; the first dense
layer takes one input (B, D) for all. Parameters and buffers of the networks become
views of the stacked ones, and gradients are handed out as views, too.

Written out and not left to autograd, which would give every step new memory for all
gradients: taking that from the system is dearer than filling it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def stacked_layer(modules: Sequence[nn.Module], rough: bool) -> Layer:
    """The same layer of several networks as one; `rough` computes in bfloat16."""
    if isinstance(modules[0], nn.Linear):
        return Linear(modules, rough)
    if isinstance(modules[0], nn.BatchNorm1d):
        return BatchNorm(modules, rough)
    if type(modules[0]) is nn.ReLU:
        return ReLU(modules, rough)
    return Layer(modules, rough)


def stand_alone(module: nn.Module) -> None:
    """Give a network memory of its own again."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    for parameter in module.parameters():
        parameter.grad = None


class Layer:
    """An activation: what works on each number alone."""

    def __init__(self, modules: Sequence[nn.Module], rough: bool):
        self._modules = modules
        self._rough = rough
        self._gradients: list[tuple[str, Tensor]] = []
        self._own = deepcopy(modules[0])
        if hasattr(self._own, "inplace"):
            self._own.inplace = False  # type: ignore[assignment]  # what it reads may be tapped

    def _stack(self, name: str) -> Tensor:
        """The parameter or buffer of all, which then is theirs."""
        parts = [getattr(module, name) for module in self._modules]
        whole = torch.stack([part.detach() for part in parts])
        for part, mine in zip(parts, whole, strict=True):
            part.data = mine
        return whole

    def _room(self, name: str, whole: Tensor) -> Tensor:
        """Where the parameter's gradient will be."""
        room = torch.zeros_like(whole)
        self._gradients.append((name, room))
        return room

    def of(self, slot: int) -> list[tuple[nn.Parameter, Tensor]]:
        """A network's parameters, each with where its gradient lies."""
        return [
            (getattr(self._modules[slot], name), room[slot])
            for name, room in self._gradients
        ]

    def forward(self, x: Tensor) -> Tensor:
        self._x = x.detach().requires_grad_()
        with (
            torch.enable_grad(),
            torch.autocast(x.device.type, torch.bfloat16, self._rough),
        ):
            self._y = self._compute(self._x)
        return self._y.detach()

    def _compute(self, x: Tensor) -> Tensor:
        result: Tensor = self._own.forward(x)  # past the hooks of its network
        return result

    def backward(self, gradient: Tensor) -> Tensor | None:
        """The gradient of what it took, from that of what it gave."""
        return torch.autograd.grad(self._y, self._x, gradient)[0]

    def commit(self) -> None:
        """Keep what the last forward pass learned of its inputs."""


class ReLU(Layer):
    """max(x, 0), whose gradient passes where the result is above 0."""

    def forward(self, x: Tensor) -> Tensor:
        self._y = torch.relu(x)
        return self._y

    def backward(self, gradient: Tensor) -> Tensor | None:
        below: Tensor = torch.ops.aten.threshold_backward(gradient, self._y, 0)
        return below


class BatchNorm(Layer):
    """Batch normalisation of (K, B, D): one of K * D features."""

    def __init__(self, modules: Sequence[nn.Module], rough: bool):
        super().__init__(modules, rough)
        self._weights = [self._stack(name) for name in ("weight", "bias")]
        self._rooms = [
            self._room(name, whole)
            for name, whole in zip(("weight", "bias"), self._weights, strict=True)
        ]
        self._running = [self._stack(name) for name in ("running_mean", "running_var")]
        self._batches = self._stack("num_batches_tracked")

    def _compute(self, x: Tensor) -> Tensor:
        networks, items, width = x.shape
        self._seen = [running.clone() for running in self._running]
        self._leaves = [w.detach().requires_grad_() for w in self._weights]
        mean, variance = (running.view(-1) for running in self._seen)
        weight, bias = (leaf.view(-1) for leaf in self._leaves)
        result = F.batch_norm(
            x.transpose(0, 1).reshape(items, networks * width),
            mean,
            variance,
            weight,
            bias,
            training=True,
            momentum=float(self._own.momentum),  # type: ignore[arg-type]
            eps=float(self._own.eps),  # type: ignore[arg-type]
        )
        return result.view(items, networks, width).transpose(0, 1)

    def backward(self, gradient: Tensor) -> Tensor | None:
        found = torch.autograd.grad(self._y, [self._x, *self._leaves], gradient)
        for room, own in zip(self._rooms, found[1:], strict=True):
            room.copy_(own)
        return found[0]

    def commit(self) -> None:
        for running, seen in zip(self._running, self._seen, strict=True):
            running.copy_(seen)
        self._batches += 1


class Linear(Layer):
    """Dense layers: one product where all read the same, a batched one elsewhere."""

    def __init__(self, modules: Sequence[nn.Module], rough: bool):
        super().__init__(modules, rough)
        self._weight = self._stack("weight")  # (K, O, I)
        self._weight_room = self._room("weight", self._weight)
        self._bias = self._bias_room = None
        if self._own.bias is not None:
            self._bias = self._stack("bias")  # (K, O)
            self._bias_room = self._room("bias", self._bias)
        # in bfloat16 the weights are rounded anew at each step, into the same memory
        self._rounded = self._weight.bfloat16() if rough else self._weight
        self._product = torch.empty_like(self._rounded) if rough else self._weight_room

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._rounded, self._bias
        if self._rough:
            weight.copy_(self._weight)
            x = x.bfloat16()
            bias = None if bias is None else bias.bfloat16()
        self._inputs = x
        networks, outputs, inputs = weight.shape
        if x.dim() == 2:  # (B, I) -> (B, K * O)
            flat = weight.view(-1, inputs).t()
            y = x @ flat if bias is None else torch.addmm(bias.view(-1), x, flat)
            return y.view(len(x), networks, outputs).transpose(0, 1)
        if bias is None:
            return torch.bmm(x, weight.mT)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    def backward(self, gradient: Tensor) -> Tensor | None:
        x, product = self._inputs, self._product
        gradient = gradient.to(x.dtype)
        if self._bias_room is not None:
            self._bias_room.copy_(gradient.sum(1))
        below = None
        if x.dim() == 2:
            flat = gradient.transpose(0, 1).reshape(len(x), -1)  # (B, K * O)
            torch.mm(flat.t(), x, out=product.view(-1, x.shape[1]))
        else:
            torch.bmm(gradient.mT, x, out=product)
            below = torch.bmm(gradient, self._rounded)
        if self._rough:
            self._weight_room.copy_(product)
        return below
