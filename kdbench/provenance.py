"""Where a number comes from: hashes of source code, and the machine it was made on."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from kdbench.api import Compression, Dataset, Model
from kdbench.combining import Combination
from kdbench.records import digest

HOST_CONTRACT = {"kdbench", "kdbench.api", "kdbench.batches", "kdbench.records"}
"""Modules that never count: their effect on results is what ENGINE versions."""


LOSSES = "kdbench.losses"
SHARED = {"soft_kl", "at_least_float32"}
"""What plugins compute with of the host's: counted with the plugin's own sources."""


def code_of(thing: object) -> str:
    """Source hash of what defines a strategy, model, dataset or compression.

    A model made out of others, given to its builder, has their sources in it too.
    """
    version = ""
    if isinstance(thing, type) and issubclass(thing, Combination):
        return digest([code_of(kind) for kind in thing.kinds])
    if isinstance(thing, Model):
        version = thing.version
        thing = thing.build
    elif isinstance(thing, Dataset):
        version = thing.version
        thing = thing.load
    elif isinstance(thing, Compression):
        thing = thing.model
    made_of = [version] if version else []
    while hasattr(thing, "func"):  # functools.partial, or what is built like it
        given = (*getattr(thing, "args", ()), *getattr(thing, "keywords", {}).values())
        made_of += [code_of(model) for model in given if isinstance(model, Model)]
        if not isinstance(thing, partial):
            made_of.append(source_hash(type(thing).__module__))
        thing = thing.func
    own = source_hash(thing.__module__)
    return digest([own, *made_of]) if made_of else own


@cache
def source_hash(module: str) -> str:
    """Hash of a module's source and of all it imports from its own package.

    So a result is remade when the code behind it changed, and not when a neighbour in
    the same distribution did.
    """
    sources: dict[str, str] = {}
    _gather(module, module.partition(".")[0], sources)
    total = hashlib.sha256()
    for name in sorted(sources):
        total.update(f"{name}\n{sources[name]}\n".encode())
    return total.hexdigest()[:12]


def _gather(name: str, package: str, sources: dict[str, str]) -> None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if name in sources or name in HOST_CONTRACT or file is None:
        return
    text = Path(file).read_text(encoding="utf-8")
    sources[name] = text
    inside = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        for imported in _imports(node, inside):
            if imported.partition(".")[0] == package or imported == LOSSES:
                _gather(imported, package, sources)


def _imports(node: ast.AST, inside: str) -> list[str]:
    """Full names of the modules that an import statement may load."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        dots = "." * node.level
        base = node.module or ""
        if base == "kdbench" and {alias.name for alias in node.names} & SHARED:
            return [LOSSES]
        if node.level:
            base = importlib.util.resolve_name(dots + base, inside)
        inner = [f"{base}.{alias.name}" for alias in node.names]
        modules = [name for name in inner if name in sys.modules]
        return modules if len(modules) == len(inner) else [base, *modules]
    return []


def now() -> str:
    """The time of day, UTC, as records keep it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def environment(device: str, threads: int) -> dict[str, str | int | float | None]:
    """What a result's bits and its speed may depend on."""
    found: dict[str, str | int | float | None] = {
        "kdbench": version("kdbench"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_model": cpu_model(),
        "cores": os.cpu_count(),
        "device": device,
        "threads": threads,
    }
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    return _cpu().get("model name") or platform.processor() or platform.machine()


def cpu_model() -> str | None:
    """Which processor it is among those of one name: rounding may differ between them.

    None where the system does not say.
    """
    numbers = [(word, _cpu().get(f"cpu {word}", _cpu().get(word))) for word in MODEL]
    told = [f"{word} {number}" for word, number in numbers if number is not None]
    return ", ".join(told) or None


MODEL = ("family", "model", "stepping", "part", "revision")
"""What Linux numbers processors by: the first three x86, the others ARM."""


@cache
def _cpu() -> dict[str, str]:
    """The first processor's lines in /proc/cpuinfo; nothing where there are none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return {}
    lines = (line.partition(":") for line in text.strip().split("\n\n")[0].split("\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines}
