"""Speed of a student: eager forward passes, median and quartiles.

Measured once for each architecture, after all training, with the thread count that is
on the record. torch.utils.benchmark warms up, synchronises CUDA and repeats.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from kdbench.api import Finished, Measure

MIN_SECONDS = 0.5
ROUNDS = 9
THROUGHPUT_BATCH = 256


def seconds(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """Quartiles of the seconds that one forward pass takes, (3,).

    Blocks of passes are timed for `MIN_SECONDS`, in `ROUNDS` rounds; a quartile is
    over all blocks.
    """
    timer = Timer(
        "model(inputs)",
        globals={"model": model, "inputs": inputs},
        num_threads=torch.get_num_threads(),
    )
    with torch.no_grad():
        rounds = [
            timer.blocked_autorange(min_run_time=MIN_SECONDS / ROUNDS)
            for _ in range(ROUNDS)
        ]
    return np.percentile([t for r in rounds for t in r.times], [25, 50, 75])


def latency(finished: Finished) -> dict[str, float]:
    """Milliseconds for one item: median and quartiles."""
    low, middle, high = 1e3 * seconds(finished.model, finished.sample[:1])
    return {"": middle, "q1": low, "q3": high}


def throughput(finished: Finished) -> dict[str, float]:
    """Items per second at batch 256: median and quartiles."""
    batch = finished.sample[:THROUGHPUT_BATCH]
    low, middle, high = len(batch) / seconds(finished.model, batch)[::-1]
    return {"": middle, "q1": low, "q3": high}


SPEED = [
    Measure(
        name="latency_ms",
        summary="one item, eager, median",
        unit="ms",
        better="lower",
        scope="model",
        compute=latency,
    ),
    Measure(
        name="throughput",
        summary="batch of 256, eager, median",
        unit="items/s",
        better="higher",
        scope="model",
        compute=throughput,
    ),
]
