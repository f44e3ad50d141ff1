"""The command line in this process, a trained teacher, and someone else's network."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from kdbench.cache import cache_dir
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


@pytest.fixture(scope="session")
def copied(run_digits, tmp_path_factory):
    """Digits runs of some kind, trained once: copied to a folder, and to the cache.

    The function returns the record of their teacher.
    """

    @cache
    def train(**changes):
        folder = tmp_path_factory.mktemp("trained")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KDBENCH_CACHE", str(folder / "cache"))
            failed, records = run_digits(
                folder / "out", pairs=["digits-mlp"], **changes
            )
        assert failed == 0
        return folder, records["mlp_bn_256_128/teacher/0"]

    def copy(out, **changes):
        folder, record = train(**changes)
        shutil.copytree(folder / "out", out)
        shutil.copytree(folder / "cache", cache_dir(), dirs_exist_ok=True)
        return record

    return copy


@pytest.fixture
def teacher(copied, tmp_path, capsys):
    """A digits run in results/digits; the record of its teacher."""
    out = tmp_path / "results"  # validation as the suite has it
    record = copied(out, strategies=("scratch",), validation=0.1)
    capsys.readouterr()
    return record


@pytest.fixture
def module(host):
    """A network with weights of its own, as anyone might have trained it."""
    torch.manual_seed(5)
    return host.dataset("digits").build(host.model("mlp_bn_8_8")).eval()
