"""A stand-in for CUDA graphs that needs no GPU."""

from __future__ import annotations

from collections import Counter

import pytest
import torch


@pytest.fixture(scope="session")
def replaying():
    """The class; a test makes one for each learner."""
    return Replaying


class Replaying:
    """What CUDA graphs do, by doing again what was captured, at the same places.

    Nothing is carried out by a capture, and all that it returns is empty.
    """

    def __init__(self):
        self.learner = None
        self.did = Counter()
        self.waits = False

    def apart(self, act):
        self.did["apart"] += 1
        return act(), self.waits

    def streams(self):
        return torch.default_generator.get_state().tolist()

    def capture(self, act):
        self.did["capture"] += 1
        kept = self._kept()
        try:
            result = act()
        finally:
            with torch.no_grad():
                for tensor, value in kept:
                    tensor.copy_(value)
        groups = self.learner.optimiser.param_groups
        parameters = [p for group in groups for p in group["params"]]
        gradients = [p.grad for p in parameters]
        for tensor in (*result.values(), *gradients):
            if tensor is not None:
                tensor.detach().fill_(torch.nan)

        def replay():
            self.did["replay"] += 1
            for name, value in act().items():
                result[name].detach().copy_(value.detach())
            for parameter, gradient in zip(parameters, gradients, strict=True):
                assert (parameter.grad is None) == (gradient is None)
                if gradient is not None:
                    gradient.copy_(parameter.grad)
                parameter.grad = None  # only what the step puts there itself counts

        return result, replay

    def _kept(self):
        parts = [self.learner.modules, self.learner.adapters]
        modules = [x for x in parts if x is not None]
        tensors = [x for m in modules for x in (*m.parameters(), *m.buffers())]
        return [(x, x.detach().clone()) for x in tensors]
