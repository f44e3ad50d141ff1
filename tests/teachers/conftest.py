"""The command line in this process, a trained teacher, and someone else's network."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
import torch

from kdbench.cli import main
from kdbench.plugins import Host


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def kdbench(monkeypatch, capsys, tmp_path, host):
    """The command line in this process, in an empty folder, without line breaks."""
    monkeypatch.setattr(
        "kdbench.plugins.Host",
        lambda files, **_: Host(files=files) if files else host,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDBENCH_DATA", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kdbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        code = end.value.code
        words = (" ".join(text.split()) for text in (printed.out, printed.err))
        return Done(code if isinstance(code, int) else 0, *words)

    return run


@pytest.fixture
def teacher(run_digits, tmp_path, capsys):
    """A digits run in results/digits; the record of its teacher."""
    out = tmp_path / "results"
    changes = {"pairs": ["digits-mlp"], "strategies": ["scratch"]}
    _, records = run_digits(out, **changes, validation=0.1)  # as the suite has it
    capsys.readouterr()
    return records["mlp_bn_256_128/teacher/0"]


@pytest.fixture
def module(host):
    """A network with weights of its own, as anyone might have trained it."""
    torch.manual_seed(5)
    return host.dataset("digits").build(host.model("mlp_bn_8_8")).eval()
