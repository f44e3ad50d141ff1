"""What energy the work takes, by the counters that a machine has.

A GPU tells by NVML what it has used itself, with all that runs on it. A CPU tells by
RAPL what its packages have used (cores, caches, memory controllers; no memory, disks or
fans); of that this process is charged its share of all CPU time, which splits it among
several processes, too. Most systems let only root read RAPL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any, Protocol

import psutil
import torch

POWERCAP = Path("/sys/class/powercap")
IDLE = ("idle", "iowait", "guest", "guest_nice")
"""Not work, or counted as "user" and "nice" already."""


class Meter(Protocol):
    """A counter of energy."""

    def spent(self) -> float:
        """Joules since the last call, or since it was made; nan if it cannot tell."""


def meter_for(device: torch.device, powercap: Path = POWERCAP) -> Meter | None:
    """The counter of what trains on this device; None where none can be read."""
    if device.type == "cuda":
        return _of_gpu(device)
    if device.type != "cpu":
        return None
    packages = [
        folder
        for folder in sorted(powercap.glob("intel-rapl:*"))
        if _text(folder / "name").startswith("package")
    ]
    try:
        return Rapl(packages) if packages else None
    except OSError:  # there, and not for everybody
        return None


def _of_gpu(device: torch.device) -> Meter | None:
    """NVML's counter of this GPU; None without nvidia-ml-py, and on old GPUs."""
    try:
        import pynvml
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    return None


class Nvml:
    """A GPU's own counter, in millijoules since its driver was loaded."""

    def __init__(self, nvml: Any, handle: Any):
        """Raises NVMLError where this GPU has no such counter."""
        self._nvml = nvml
        self._handle = handle
        self._last = self._read()

    def _read(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def spent(self) -> float:
        try:
            now = self._read()
        except self._nvml.NVMLError:
            return math.nan
        before, self._last = self._last, now
        return (now - before) / 1e3 if now >= before else math.nan


def _busy() -> float:
    """CPU seconds that all processes of the machine have taken."""
    times = psutil.cpu_times()._asdict()
    return float(sum(v for name, v in times.items() if name not in IDLE))


class Rapl:
    """The counters of a CPU's packages, in microjoules, which start again at their end.

    To be asked at least once while they fill, which takes minutes at full load.
    """

    def __init__(
        self,
        packages: list[Path],
        own: Callable[[], float] = process_time,
        busy: Callable[[], float] = _busy,
    ):
        """`own` and `busy` tell CPU seconds: this process's, and everybody's.

        Raises OSError where a counter cannot be read.
        """
        self._own, self._busy = own, busy
        self._counters = [package / "energy_uj" for package in packages]
        self._ranges = [
            int((package / "max_energy_range_uj").read_text("ascii"))
            for package in packages
        ]
        self._last = self._read()

    def _read(self) -> tuple[list[int], float, float]:
        counts = [int(counter.read_text("ascii")) for counter in self._counters]
        return counts, self._own(), self._busy()

    def spent(self) -> float:
        try:
            now = self._read()
        except OSError:
            return math.nan
        (counts, own, busy), self._last = self._last, now
        used = sum(
            (new - old) % whole
            for new, old, whole in zip(now[0], counts, self._ranges, strict=True)
        )
        everybody = now[2] - busy
        # both clocks tick: the share of a short time may seem to be more than all
        share = min(1.0, (now[1] - own) / everybody) if everybody > 0 else 1.0
        return share * used / 1e6


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""
