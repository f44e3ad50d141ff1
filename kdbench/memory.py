"""How many runs fit side by side: what they need, and the memory there is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import UserError
from kdbench.plan import Group
from kdbench.plugins import Host
from kdbench.records import Recipe, Run, digest

SHARE = 0.5
"""Of the memory there is: what persists of a group's learners may fill this much. The
rest is for activations, adapters, the data and checkpoints on their way to the disk."""

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
MEMBERSHIP = Path("/proc/self/cgroup")
FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""By version where a control group tells its limit, its use, and in `memory.stat` what
of that are files that can be dropped."""


def available(device: str) -> int | None:
    """Bytes that can still be allocated on a device; None where nothing tells.

    On the CPU the least of what the machine has and what a container is allowed.
    """
    kind = torch.device(device).type
    if kind == "cuda" and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return free
    if kind == "mps" and torch.backends.mps.is_available():
        used = torch.mps.driver_allocated_memory()
        return torch.mps.recommended_max_memory() - used
    if kind != "cpu":  # planned here for another machine
        return None
    return min([*_of_machine(), *_of_container()], default=None)


def _of_machine() -> Iterator[int]:
    """What the kernel calls available; elsewhere all there is, where that is told."""
    if MEMINFO.is_file():
        for line in MEMINFO.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_container() -> Iterator[int]:
    """What the limits on this process's control groups leave, in both versions."""
    for version, place in _control_groups():
        limit, used, files = FILES[version]
        root = CGROUP if version == 2 else CGROUP / "memory"
        for folder in (place, *place.parents):  # a group is limited by those above it
            here = root / folder
            allowed = _number(here / limit)
            if allowed is not None:
                taken = _number(here / used) or 0  # with files that can be dropped
                yield max(0, allowed - taken + _named(here / "memory.stat", files))


def _control_groups() -> Iterator[tuple[int, Path]]:
    """This process's memory groups: the version, and the path below its root."""
    if MEMBERSHIP.is_file():
        for line in MEMBERSHIP.read_text("utf-8").splitlines():
            number, kinds, path = line.split(":", 2)
            if number == "0" or "memory" in kinds.split(","):
                yield 2 if number == "0" else 1, Path(path.lstrip("/"))


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file, and where it says "max"."""
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _named(path: Path, name: str) -> int:
    """The number that follows `name` in a file of lines; else 0."""
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in lines if x.startswith(f"{name} ")), 0)


def halves(group: Group, runs: Sequence[Run]) -> list[Group]:
    """Two groups of these runs of the group."""
    middle = len(runs) // 2
    return _parts(group, [runs[:middle], runs[middle:]])


def fitting(
    group: Group, host: Host, room: int | None, device: str, at_once: int = 1
) -> list[Group]:
    """The group in as few parts as fit `room` bytes on `device`; None: no limit.

    `at_once` is how many groups are trained at a time. No bit of any run depends on the
    parts. Raises UserError for a run that cannot fit even alone.
    """
    if room is None:
        return [group]
    models = {m for run in (*group.runs, *group.teachers) for m in run.students}
    sizes = {name: _size(host, group.runs[0].dataset, name) for name in models}
    teachers = sum(sizes[m].weights for run in group.teachers for m in run.students)
    needs = [
        sum(sizes[m].trained(run.recipe) for m in run.students) for run in group.runs
    ]
    for run, need in zip(group.runs, needs, strict=True):
        if teachers + need > room:
            raise UserError(_too_large(run, teachers + need, room, device))
    parts: list[list[Run]] = []
    left = 0.0
    for run, need in zip(group.runs, needs, strict=True):
        if not parts or need > left:
            parts.append([])
            left = SHARE * room / at_once - teachers
        parts[-1].append(run)
        left -= need
    return [group] if len(parts) == 1 else _parts(group, parts)


def _parts(group: Group, parts: Sequence[Sequence[Run]]) -> list[Group]:
    return [
        replace(group, id=digest([group.id, len(parts), k]), runs=tuple(part))
        for k, part in enumerate(parts)
    ]


@dataclass(frozen=True)
class _Size:
    """Bytes of a model's parameters, and of parameters and buffers."""

    parameters: int
    weights: int

    def trained(self, recipe: Recipe) -> int:
        """Bytes that stay while it trains: weights, gradients, optimiser state.

        Not what a strategy adds, which only building it would tell.
        """
        return self.weights + self.parameters * (1 + _states(recipe))


def _size(host: Host, dataset: str, model: str) -> _Size:
    with torch.device("meta"):
        module = host.dataset(dataset).build(host.model(model))
    parameters = _bytes(module.parameters())
    return _Size(parameters, parameters + _bytes(module.buffers()))


def _states(recipe: Recipe) -> int:
    """How many tensors of a parameter's size the recipe's optimiser keeps."""
    if recipe.optimiser == "adam":
        return 2
    return 1 if recipe.momentum else 0


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _too_large(run: Run, need: int, room: int, device: str) -> str:
    what = "+".join(run.students)
    return (
        f"{run.label} on {run.dataset}, pair {run.pair}: training {what} needs at "
        f"least {need / 1e9:.1f} GB (weights, gradients and the state of "
        f"{run.recipe.optimiser}, beside its teachers), and {room / 1e9:.1f} GB are "
        f"free on {device}; free some, take another --device, or smaller models"
    )
