"""The global random generators, which no strategy may use."""

from __future__ import annotations

import random

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
