"""A plugin of one strategy and one of a source, and where a host finds them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

HEAD = """
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

@dataclass(frozen=True, kw_only=True)
class Mine(Strategy):
    '''Mine.'''
    name = "NAME"
    teachers = 0
    weight: float = 1.0

    def loss(self, batch):
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": self.weight * ce}
"""
GOOD = HEAD + "\n@hookimpl\ndef kdbench_strategies():\n    return [Mine]\n"

SOURCE = """
from dataclasses import replace
from kdbench import Source, UserError, hookimpl

def find(rest, host):
    if rest == "broken":
        raise OSError("no disk")
    if rest == "nothing":
        return None
    if not rest.isdigit():
        raise UserError(f"wide:{rest} is no width")
    return replace(host.model("convnet_6"), name=f"wide:{rest}", version=rest)

@hookimpl
def kdbench_models():
    return [Source(name="wide", summary="convnets", find=find)]
"""


def plugin(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text.replace("NAME", name))
    return path


def points(monkeypatch, folder: Path, **texts: str) -> list[EntryPoint]:
    """Entry points of modules written into a folder on the path."""
    monkeypatch.syspath_prepend(str(folder))
    found = []
    for name, text in texts.items():
        module = f"{name}_{abs(hash(folder)) % 10**8}"  # no module is loaded twice
        plugin(folder, module, text.replace("NAME", name))
        found.append(EntryPoint(name, module, "kdbench"))
    return found
