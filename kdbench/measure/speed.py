"""Speed of a network as PyTorch runs it: the headline of all that `timing` measures.

With the number of threads that is set, which is on the record: of every architecture
once, after all training; of what is only known when its training ended, then.
"""

from __future__ import annotations

import torch

from kdbench.api import Finished, Measure
from kdbench.measure.runtimes import Form, runs
from kdbench.measure.timing import best_batch_of, race, timed
from kdbench.records import Timing

MIN_SECONDS = 0.5


@torch.no_grad()
def latency(finished: Finished) -> dict[str, float]:
    """Milliseconds for one item: median and quartiles."""
    one = timed(_eager(finished), finished.sample, 1, waits=True)
    race([one], MIN_SECONDS)
    return _named(one.milliseconds())


@torch.no_grad()
def throughput(finished: Finished) -> dict[str, float]:
    """Items per second at the best batch size: median, quartiles, and that size."""
    form = _eager(finished)
    batch = best_batch_of(form, finished.sample, MIN_SECONDS)
    many = timed(form, finished.sample, batch)
    race([many], MIN_SECONDS)
    return _named(many.rates(batch)) | {"batch": batch}


def headline(timing: Timing) -> dict[str, float | None]:
    """What `SPEED` would measure, from a timing that there is."""
    found: dict[str, float | None] = {"throughput_batch": timing.batch}
    for name in ("latency_ms", "throughput"):
        quartiles = getattr(timing, name)
        if quartiles is not None:
            named = _named(quartiles)
            found |= {f"{name}_{k}" if k else name: v for k, v in named.items()}
    return found


def _eager(finished: Finished) -> Form:
    return Form("eager", "float32", torch.get_num_threads(), runs(finished.model))


def _named(quartiles: tuple[float, float, float]) -> dict[str, float]:
    low, middle, high = quartiles
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
        summary="best batch size, eager, median",
        unit="items/s",
        better="higher",
        scope="model",
        compute=throughput,
    ),
]
