"""The global random generators, which no strategy may use."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def global_generators() -> dict[str, object]:
    """The states of torch's (on the CPU), Python's and NumPy's, to be compared."""
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - that one
    return {
        "torch": torch.default_generator.get_state().numpy().tobytes(),
        "random": random.getstate(),
        "numpy": (np.asarray(keys).tobytes(), *rest),
    }


@contextmanager
def seeded_back() -> Iterator[None]:
    """Afterwards they are where they were."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002
