"""Counters of energy (a made-up sysfs, a made-up NVML), and who is charged."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdbench.engine import Stopped, account, checkpoint, energy
from kdbench.engine.energy import Rapl, meter_for

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from costing import Bench, Plain, stopped_clock

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Sysfs:
    """/sys/class/powercap of a machine with two packages."""

    def __init__(self, root):
        self.root = root
        for folder, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ):
            (root / folder).mkdir()
            (root / folder / "name").write_text(f"{name}\n")
            (root / folder / "max_energy_range_uj").write_text("1000000\n")
            self.put(folder, 0)

    def put(self, folder, microjoules):
        (self.root / folder / "energy_uj").write_text(f"{microjoules}\n")

    def meter(self, own=lambda: 0.0, busy=lambda: 0.0):
        packages = [self.root / f"intel-rapl:{k}" for k in (0, 1)]
        return Rapl(packages, own, busy)


@pytest.fixture
def sysfs(tmp_path):
    return Sysfs(tmp_path)


def test_packages_are_summed_and_nothing_else(sysfs, monkeypatch):
    monkeypatch.setattr(energy, "_busy", lambda: 0.0)
    monkeypatch.setattr(Rapl.__init__, "__defaults__", (lambda: 0.0, lambda: 0.0))
    meter = meter_for(CPU, sysfs.root)
    for folder in sysfs.root.iterdir():
        sysfs.put(folder.name, 250_000)
    assert meter.spent() == pytest.approx(0.5)
    assert meter.spent() == 0


def test_a_counter_that_goes_round(sysfs):
    sysfs.put("intel-rapl:0", 900_000)
    meter = sysfs.meter()
    sysfs.put("intel-rapl:0", 150_000)
    sysfs.put("intel-rapl:1", 10_000)
    assert meter.spent() == pytest.approx(0.25 + 0.01)


def test_only_its_own_share_of_the_work_is_charged(sysfs):
    own, busy = iter([1.0, 2.0, 3.0]), iter([10.0, 14.0, 14.5])
    meter = sysfs.meter(lambda: next(own), lambda: next(busy))
    sysfs.put("intel-rapl:0", 800_000)
    assert meter.spent() == pytest.approx(0.8 / 4)
    sysfs.put("intel-rapl:0", 900_000)
    assert meter.spent() == pytest.approx(0.1)  # never more than all


def test_what_cannot_be_read_is_unknown(sysfs):
    meter = sysfs.meter()
    place = sysfs.root / "intel-rapl:1" / "energy_uj"
    place.unlink()
    assert math.isnan(meter.spent())
    assert meter_for(CPU, sysfs.root) is None
    place.mkdir()  # there, and no file to read: as where only root may
    assert meter_for(CPU, sysfs.root) is None
    assert meter_for(CPU, sysfs.root / "nowhere") is None
    assert meter_for(torch.device("mps"), sysfs.root) is None


def test_work_is_what_is_not_idle(monkeypatch):
    times = {"user": 5.0, "nice": 1.0, "system": 2.0, "idle": 90.0, "iowait": 4.0}
    times |= {"guest": 3.0}  # is in "user", too
    told = SimpleNamespace(_asdict=lambda: times)
    monkeypatch.setattr(energy.psutil, "cpu_times", lambda: told)
    assert energy._busy() == 8.0


class Nvml:
    """pynvml with one GPU, whose counter can fail."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts):
        self._counts = iter(counts)
        self.asked = []

    def nvmlInit(self):  # noqa: N802
        self.asked.append("init")

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        self.asked.append(uuid)
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        assert handle == "handle"
        count = next(self._counts)
        if count is None:
            raise self.NVMLError
        return count


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU that counts so."""

    def make(*counts):
        nvml = Nvml(counts)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        known = SimpleNamespace(uuid="12-ab")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: known)
        return nvml

    return make


def test_a_gpu_tells_its_own(gpu):
    nvml = gpu(5_000, 7_500, 7_500, None, 9_000)
    meter = meter_for(GPU)
    assert nvml.asked == ["init", "GPU-12-ab"]
    assert meter.spent() == 2.5
    assert meter.spent() == 0
    assert math.isnan(meter.spent())
    assert meter.spent() == 1.5  # since it was last read


def test_a_driver_that_was_loaded_again_is_unknown(gpu):
    gpu(5_000, 100)
    assert math.isnan(meter_for(GPU).spent())


def test_a_gpu_without_a_counter_or_a_library(gpu, monkeypatch):
    gpu(None)
    assert meter_for(GPU) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert meter_for(GPU) is None


class Meter:
    """A counter that has used a joule each time it is asked, or cannot tell."""

    def __init__(self, joules):
        self._joules = joules
        self.read = 0

    def spent(self):
        self.read += 1
        return next(self._joules, 1.0)


def lasting(ticks, seconds):
    class Lasting(Plain):
        def loss(self, batch):
            ticks.let("loss", seconds)
            return super().loss(batch)

    return Lasting


def test_energy_is_shared_by_time(tmp_path, monkeypatch):
    ticks = stopped_clock(monkeypatch)
    long, short = (lasting(ticks, seconds) for seconds in (3, 1))
    meter = Meter(iter([30.0, 10.0]))
    monkeypatch.setattr(account, "READ_S", 60.0)
    monkeypatch.setattr(account, "meter_for", lambda _device: meter)
    bench = Bench()
    learners = [bench.learner(kind) for kind in (long, short)]
    bench.train(*learners, folder=tmp_path)
    costs = [x.trace.bill() for x in learners]
    assert meter.read == 2  # once an epoch: no more is needed in that time
    assert [c["energy_j"] for c in costs] == pytest.approx([30.0, 10.0])


def test_energy_of_a_long_epoch_is_read_in_time(tmp_path, monkeypatch):
    """Counters go round, which nobody notices who reads them too seldom."""
    meter = Meter(iter(()))
    monkeypatch.setattr(account, "meter_for", lambda _device: meter)
    monkeypatch.setattr(account, "READ_S", 0.0)
    bench = Bench()
    one = bench.learner()
    bench.train(one, folder=tmp_path)
    assert meter.read == 2 * (bench.feed.steps + 2)
    assert one.trace.bill()["energy_j"] == meter.read


@pytest.mark.parametrize("joules", [[], [math.nan, 5.0], [5.0, math.nan], [0.0, 0.0]])
def test_energy_that_is_not_known_is_null(tmp_path, monkeypatch, joules):
    meter = Meter(iter(joules)) if joules else None
    monkeypatch.setattr(account, "meter_for", lambda _device: meter)
    bench = Bench()
    one = bench.learner()
    bench.train(one, folder=tmp_path)
    assert one.trace.bill()["energy_j"] is None


def test_energy_adds_up_over_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(account, "meter_for", lambda _device: Meter(iter(())))
    bench = Bench()
    one = bench.learner()
    calls = itertools.chain([False] * 9, itertools.repeat(True))
    with pytest.raises(Stopped):
        bench.train(one, folder=tmp_path, stop=lambda: next(calls))
    saved = checkpoint.load(tmp_path, one.run.id)
    assert saved["trace"]["cost"]["energy_j"] == 2  # an epoch, and the part of one
    resumed = bench.learner()
    resumed.restore(saved)
    bench.train(resumed, folder=tmp_path)
    assert resumed.trace.bill()["energy_j"] == 3
