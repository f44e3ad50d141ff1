"""Timing, by modules of known slowness, cost curves by hand, and a busy machine."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from kdbench.api import Finished, Task
from kdbench.measure import machine, timing
from kdbench.measure.machine import Others, cores, governor
from kdbench.measure.speed import headline, latency, throughput
from kdbench.measure.timing import (
    FEWEST,
    LARGEST_BATCH,
    ROUNDS,
    Series,
    best_batch,
    is_noisy,
    race,
    timings,
)

NAP = 0.004
QUICK = 0.02


class Sleeps(nn.Module):
    """As long for many items as for one."""

    def forward(self, inputs):
        time.sleep(NAP)
        return inputs


def test_a_known_slow_network():
    [found] = timings(
        Sleeps(),
        torch.randn(64, 3),
        device="cpu",
        runtimes=["eager"],
        precisions=["float32"],
        seconds=QUICK,
    )
    low, middle, high = found.latency_ms
    assert 1e3 * NAP <= low <= middle <= high
    assert middle < 10e3 * NAP
    assert found.batch == LARGEST_BATCH  # nothing is lost by taking more
    slow, usual, fast = found.throughput
    assert 0.1 * found.batch / NAP < slow <= usual <= fast <= found.batch / NAP
    assert (found.difference, found.reason) == (0, None)
    assert found.repeats >= FEWEST
    assert found.size_bytes is None


def test_the_headline_is_timed_likewise(monkeypatch):
    monkeypatch.setattr("kdbench.measure.speed.MIN_SECONDS", QUICK)
    finished = Finished(
        model=Sleeps(),
        task=Task(outputs=1),
        device="cpu",
        sample=torch.zeros(256, 1),
        logits=torch.zeros(0, 1),
        targets=torch.zeros(0),
        teacher_logits=None,
    )
    found = latency(finished)
    assert 4 <= found["q1"] <= found[""] <= found["q3"]
    assert found[""] < 40
    rate = throughput(finished)
    assert rate["batch"] == LARGEST_BATCH
    assert rate["q1"] <= rate[""] <= rate["q3"] <= LARGEST_BATCH / NAP
    assert rate[""] > LARGEST_BATCH / (10 * NAP)


def test_a_timing_has_the_headlines_names():
    found = timing.Timing(
        runtime="eager",
        precision="float32",
        threads=1,
        batch=8,
        latency_ms=(1, 2, 3),
        throughput=(10, 20, 30),
    )
    assert headline(found) == {
        "latency_ms_q1": 1,
        "latency_ms": 2,
        "latency_ms_q3": 3,
        "throughput_q1": 10,
        "throughput": 20,
        "throughput_q3": 30,
        "throughput_batch": 8,
    }


def curve(seconds):
    """What a pass takes by batch size, and the sizes that were tried."""
    tried = []

    def pass_of(batch):
        tried.append(batch)
        return seconds(batch)

    return pass_of, tried


def test_the_best_batch_of_a_cost_by_hand():
    """10 ms for each pass and 1 ms for each item.

    Items per second: 865 at 64, 928 at 128 (+7%), 962 at 256 (+4%), 981 at 512 (+6%
    over 128: the best), 990 at 1024 (+1%).
    """
    pass_of, tried = curve(lambda batch: 0.010 + 0.001 * batch)
    assert best_batch(pass_of, longest=60) == 512
    assert tried == [2**i for i in range(11)]


@pytest.mark.parametrize(
    ("rates", "best", "tried"),
    [
        ([100, 100, 100], 1, 3),  # more items, no more speed
        ([100, 104, 104.9], 1, 3),
        ([100, 106, 100, 106], 2, 4),
        ([100, 90, 150, 150, 150], 4, 5),  # past one dip
        ([100, 90, 90, 900], 1, 3),  # not past two
    ],
)
def test_the_search_ends_after_two_doublings_for_nothing(rates, best, tried):
    pass_of, sizes = curve(lambda batch: batch / rates[batch.bit_length() - 1])
    assert best_batch(pass_of, longest=1e9) == best
    assert len(sizes) == tried


def test_no_pass_is_to_take_too_long():
    pass_of, tried = curve(lambda batch: 0.1 + 0.01 * batch)
    assert best_batch(pass_of, longest=0.5) == 16
    assert tried == [1, 2, 4, 8, 16]  # 32 might take 0.52


def test_the_search_ends_where_memory_does():
    def pass_of(batch):
        if batch > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return 1.0

    assert best_batch(pass_of, longest=60) == 4
    with pytest.raises(RuntimeError, match="allocate"):
        best_batch(lambda batch: pass_of(batch + 4), longest=60)


def test_an_error_of_a_pass_is_no_end_of_memory():
    def pass_of(batch):
        if batch > 4:
            raise RuntimeError("shape mismatch")
        return 1.0

    with pytest.raises(RuntimeError, match="shape"):
        best_batch(pass_of, longest=60)


def test_what_is_compared_is_timed_in_turns():
    """Passes of 1 and 4 ms, 40 ms for each: blocks of 2 ms and of 4 ms."""
    done = []

    def series(name, seconds):
        def block(number):
            done.append((name, number))
            return seconds

        return Series(ready=None, block=block)

    quick, slow, slowest = pair = (
        series("quick", 0.001),
        series("slow", 0.004),
        series("slowest", 0.040),
    )
    race(pair, seconds=0.04)
    assert [len(one.times) for one in pair] == [ROUNDS, 10, FEWEST]
    assert (quick.number, slow.number, slowest.number) == (2, 1, 1)
    blocks = done[-sum(len(one.times) for one in pair) :]
    assert blocks[:6] == [("quick", 2), ("slow", 1), ("slowest", 1)] * 2


def test_quartiles_over_blocks_by_hand():
    one = Series(ready=None, block=None, times=[0.005, 0.001, 0.003, 0.002, 0.004])
    assert one.milliseconds() == pytest.approx((2, 3, 4))
    assert one.rates(12) == pytest.approx((3000, 4000, 6000))
    assert one.spread == pytest.approx(2 / 3)


def readings(*values):
    known = iter(values)
    return lambda: next(known)


def test_the_share_of_others_by_hand():
    """In 10 s the cores worked 8 s, 3 s of them for this process."""
    found = Others(readings((100, 50, 20), (110, 58, 23))).share()
    assert found == pytest.approx(5 / (10 * cores()))


def test_a_share_is_between_nothing_and_all():
    coarse = Others(readings((0, 0, 0), (1, 0.99, 1))).share()  # ticks of 10 ms
    assert coarse == 0
    assert Others(readings((0, 0, 0), (1, 10 * cores(), 0))).share() == 1
    assert Others(readings(None, (1, 1, 1))).share() is None
    assert Others(readings((1, 1, 1), None)).share() is None


@pytest.mark.parametrize(
    ("spread", "others", "noisy"),
    [
        (0.09, 0.09, False),
        (0.11, 0.01, True),
        (0.01, 0.11, True),
        (0.09, None, False),
        (0.11, None, True),
    ],
)
def test_what_is_noisy(spread, others, noisy):
    assert is_noisy(spread, others) is noisy


def test_a_governor_that_cannot_be_read_is_unknown(monkeypatch):
    monkeypatch.setattr(machine, "_allowed", lambda: [10**6])
    assert governor() is None


class Counts(nn.Module):
    """Keeps the numbers of threads that it ran with."""

    def __init__(self):
        super().__init__()
        self.seen = set()
        self.linear = nn.Linear(2, 2)

    def __deepcopy__(self, memo):
        return self

    def forward(self, inputs):
        self.seen.add(torch.get_num_threads())
        return self.linear(inputs)


@pytest.mark.parametrize("threads", [1, 2])
def test_each_form_has_its_threads_and_they_are_put_back(threads):
    torch.set_num_threads(3)  # conftest sets it back
    module = Counts()
    [found] = timings(
        module,
        torch.randn(8, 2),
        device="cpu",
        runtimes=["eager"],
        precisions=["float32"],
        threads=[threads],
        batch=4,
        seconds=QUICK,
    )
    assert (found.threads, found.batch) == (threads, 4)
    assert module.seen - {3} == {threads}  # what is expected is computed as it was
    assert torch.get_num_threads() == 3


def test_the_network_is_left_as_it_is():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found = timings(
        module,
        torch.randn(8, 3),
        device="cpu",
        runtimes=["eager"],
        precisions=["float32", "bfloat16"],
        batch=4,
        seconds=QUICK,
    )
    assert [t.reason for t in found] == [None, None]
    assert module.training
    after = module.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_every_combination_has_its_place_with_times_or_a_reason():
    runtimes, precisions = ("eager", "cuda-graph"), ("float32", "int8")
    found = timings(
        Sleeps(),
        torch.randn(8, 3),
        device="cpu",
        runtimes=runtimes,
        precisions=precisions,
        batch=2,
        seconds=QUICK,
    )
    names = [(t.runtime, t.precision) for t in found]
    assert names == list(itertools.product(runtimes, precisions))
    for one in found[1:]:
        assert one.latency_ms is one.throughput is one.batch is one.repeats is None
        assert one.reason
        assert not one.noisy
    assert "CUDA" in found[2].reason


def test_blocks_between_events_count_what_is_timed_only():
    """As on a GPU, with the CPU's clock: 1% of the passes, or two, are unseen."""
    done = []
    seconds = timing._between_events(
        lambda: done.append(time.sleep(0.0005)), torch.device("cpu"), 300
    )
    assert len(done) == 303
    assert 0.0005 <= seconds < 0.01
    done.clear()
    timing._between_events(lambda: done.append(1), torch.device("cpu"), 5)
    assert len(done) == 7


BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux keeps count")
def test_times_are_noisy_while_other_processes_have_the_cores():
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores())]
    try:
        time.sleep(0.5)
        [found] = timings(
            nn.Linear(64, 64),
            torch.randn(64, 64),
            device="cpu",
            runtimes=["eager"],
            precisions=["float32"],
            batch=64,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert found.others > 0.2
    assert found.noisy
