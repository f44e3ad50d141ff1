"""How fast networks are: latency of one item, throughput at the best batch size.

What is compared is timed in turns: in every round each form computes one block of
passes with one item and one block with its best batch, so that a disturbance of the
machine falls on all of them. Numbers are over blocks: median and quartiles.

On a CUDA device blocks lie between two of its events, and for latency each pass is
waited for; elsewhere torch.utils.benchmark runs the blocks. Either does some passes
unseen before each block.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from kdbench.api import UserError
from kdbench.engine.clock import Clock
from kdbench.engine.clock import seconds as seconds_of
from kdbench.engine.device import keep_memory
from kdbench.engine.faults import is_out_of_memory, raise_if_machine
from kdbench.forms.onnx import cause
from kdbench.measure.machine import Others
from kdbench.measure.machine import cores as cores
from kdbench.measure.machine import governor as governor
from kdbench.measure.runtimes import PRECISIONS as PRECISIONS
from kdbench.measure.runtimes import RUNTIMES as RUNTIMES
from kdbench.measure.runtimes import Form, Forms, NotOffered, Pass, threads_set
from kdbench.records import Timing

SECONDS = 1.0
"""Spent on each number: on one item, and on the best batch."""

ROUNDS = 20
"""Blocks of each number. Slow passes get fewer, but `FEWEST`: quartiles of less say
nothing."""
FEWEST = 5

LARGEST_BATCH = 1024
GROWTH = 1.05
PATIENCE = 2
"""A larger batch is better where it is faster by 5%; two doublings that are not end the
search, as one may fall into a slower kernel, or a disturbance."""

PROBES = 3
PROBE_SECONDS = 0.002
LONG_PASS = 0.05
"""A batch size is tried in the fastest of three blocks of at least 2 ms, as what
disturbs a block only makes it slower; a pass of more than 50 ms, in one."""

SPREAD = 0.1
"""Blocks whose interquartile range is more than this share of their median are noisy:
medians of such blocks differ by more than a few per cent from one time to the next."""

OTHERS = 0.1
"""So are times while other processes took more than this share of the cores. An idle
system's own work takes a hundredth; one busy process takes a whole core."""

Quartiles = tuple[float, float, float]
Wanted = tuple[str, str, int]
"""Runtime, precision, number of threads."""


def timings(
    module: nn.Module,
    sample: Tensor,
    *,
    device: str,
    runtimes: Sequence[str] = RUNTIMES,
    precisions: Sequence[str] = PRECISIONS,
    threads: Sequence[int] = (1,),
    batch: int | None = None,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Timing]:
    """Every combination of runtime, precision and threads, in this order.

    `sample` is a batch of inputs unlike each other, 32 or more, on which the forms are
    checked; `batch` is that of the throughput, None finds the best one. What there is
    not, or what is wrong, has a reason instead of times. `tell` is told what is done.
    """
    wanted = list(product(runtimes, precisions, threads))
    return timings_of(
        module,
        sample,
        wanted,
        device=device,
        batch=batch,
        seconds=seconds,
        tell=tell,
    )


@torch.no_grad()
def timings_of(
    module: nn.Module,
    sample: Tensor,
    wanted: Sequence[Wanted],
    *,
    device: str,
    batch: int | None = None,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Timing]:
    """As `timings`, of these combinations. Raises faults of the machine."""
    place = torch.device(device)
    keep_memory()  # else large batches take one of two speeds, by what was freed before
    with _exact(place):
        forms = Forms(module, sample, place)
        found = []
        for one in wanted:
            runtime, precision, threads = one
            tell(f"preparing {runtime} {precision}, threads: {threads}")
            found.append(_prepared(forms, one, batch, seconds))
        tell("timing all in turns")
        ready = [one for one in found if isinstance(one, Contestant)]
        meter = Others()
        race([series for one in ready for series in one.series], seconds)
        others = meter.share()
    return [one.timing(others) if isinstance(one, Contestant) else one for one in found]


@dataclass(frozen=True)
class Contestant:
    """A form that was found right, made ready to be timed."""

    form: Form
    difference: float
    batch: int
    latency: Series
    throughput: Series

    @property
    def series(self) -> tuple[Series, Series]:
        return self.latency, self.throughput

    def timing(self, others: float | None) -> Timing:
        spread = max(series.spread for series in self.series)
        return Timing(
            runtime=self.form.runtime,
            precision=self.form.precision,
            threads=self.form.threads,
            batch=self.batch,
            latency_ms=self.latency.milliseconds(),
            throughput=self.throughput.rates(self.batch),
            repeats=min(len(series.times) for series in self.series),
            difference=self.difference,
            size_bytes=self.form.size_bytes,
            spread=spread,
            others=others,
            noisy=is_noisy(spread, others),
        )


def is_noisy(spread: float, others: float | None) -> bool:
    """Whether times are not to be relied on."""
    return spread > SPREAD or (others is not None and others > OTHERS)


def _prepared(
    forms: Forms, wanted: Wanted, batch: int | None, seconds: float
) -> Contestant | Timing:
    """The form, checked and with its batch, or why there is none."""
    runtime, precision, threads = wanted
    try:
        form = forms.form(*wanted)
        batch = batch or best_batch_of(form.like or form, forms.sample, seconds)
        one = timed(form, forms.sample, 1, waits=True)
        many = timed(form, forms.sample, batch)
        difference = forms.difference(form, [one.ready, many.ready])
    except (NotOffered, UserError) as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - a runtime may raise anything
        if not is_out_of_memory(error):
            raise_if_machine(error, forms.device, f"{runtime} {precision}")
        why = cause(error)
    else:
        return Contestant(form, difference, batch, one, many)
    return Timing(runtime=runtime, precision=precision, threads=threads, reason=why)


@dataclass
class Series:
    """Blocks of one pass: `times` are in seconds for one pass, one for each block.

    `block(number)` runs the pass `ready` so many times, and gives the seconds of one.
    """

    ready: Pass
    block: Callable[[int], float]
    number: int = 1
    times: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        low, middle, high = self._quartiles()
        return (high - low) / middle

    def milliseconds(self) -> Quartiles:
        low, middle, high = self._quartiles()
        return 1e3 * low, 1e3 * middle, 1e3 * high

    def rates(self, items: int) -> Quartiles:
        """Items per second, for passes of so many."""
        low, middle, high = self._quartiles()
        return items / high, items / middle, items / low

    def _quartiles(self) -> Quartiles:
        low, middle, high = map(float, np.percentile(self.times, [25, 50, 75]))
        return low, middle, high


def race(series: Sequence[Series], seconds: float) -> None:
    """Time blocks of all of them in turns, about `seconds` for each."""
    for one in series:
        one.number = max(1, math.ceil(seconds / ROUNDS / quickest(one.block)))
    spent = [0.0] * len(series)
    for turn in range(ROUNDS):
        for i, one in enumerate(series):
            if turn < FEWEST or spent[i] < seconds:
                took = one.block(one.number)
                one.times.append(took)
                spent[i] += took * one.number


def quickest(block: Callable[[int], float]) -> float:
    """Seconds that a pass takes, of a few blocks the fastest; of a long one, once."""
    first = block(1)
    if first > LONG_PASS:
        return first
    number = max(1, math.ceil(PROBE_SECONDS / first))
    return min(block(number) for _ in range(PROBES))


def best_batch_of(form: Form, sample: Tensor, seconds: float) -> int:
    """The batch size at which a form computes most items per second.

    No pass is to take longer than `seconds`, which on a CPU bounds its memory, too.
    """

    def pass_of(batch: int) -> float:
        return quickest(timed(form, sample, batch).block)

    return best_batch(pass_of, seconds)


def best_batch(pass_of: Callable[[int], float], longest: float) -> int:
    """The best of 1, 2, 4 ... items, `pass_of` giving a pass's seconds.

    The rule is that of `GROWTH` and `PATIENCE`, up to `LARGEST_BATCH` items, as far as
    there is memory and a pass will not take longer than `longest` seconds.
    """
    best, most, since, batch = 1, 0.0, 0, 1
    while batch <= LARGEST_BATCH and since < PATIENCE:
        try:
            took = pass_of(batch)
        except Exception as error:
            if batch > 1 and is_out_of_memory(error):
                break
            raise
        if batch / took > GROWTH * most:
            best, most, since = batch, batch / took, 0
        else:
            since += 1
        if 2 * took > longest:
            break
        batch *= 2
    return best


def timed(form: Form, sample: Tensor, batch: int, *, waits: bool = False) -> Series:
    """Passes of so many items, the sample repeated, each `waits` to be done or not."""
    times = math.ceil(batch / len(sample))
    inputs = sample.repeat(times, *[1] * (sample.dim() - 1))[:batch]
    with threads_set(form.threads):
        ready = form.at(inputs)
    device = sample.device
    act = partial(_waited, ready) if waits and device.type != "cpu" else ready
    if device.type == "cuda":
        return Series(ready, partial(_between_events, act, device))
    timer = Timer(
        "act()", globals={"act": act}, num_threads=form.threads, timer=_moment
    )
    return Series(ready, lambda number: float(timer.timeit(number).times[0]))


def _waited(ready: Pass) -> None:
    ready()
    torch.accelerator.synchronize()


def _moment() -> float:
    """The clock, once an accelerator has done what it was asked for."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def _between_events(act: Callable[[], object], device: torch.device, n: int) -> float:
    """Seconds that a CUDA device takes for one of `n` passes."""
    clock = Clock(device)
    for _ in range(max(n // 100, 2)):
        act()
    start = clock.now()
    for _ in range(n):
        act()
    return seconds_of(clock.since(start)) / n


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """On a GPU float32 is float32, and kernels are chosen by trial."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
