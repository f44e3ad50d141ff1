"""What many tests share: a host, a way to run a suite, and the real data."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from kdbench.config import Suite, changed, read_suite
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.session import Options, Session
from kdbench.store import load

Runner = Callable[..., tuple[int, dict[str, Record]]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell that runs the tests in the background lets them ignore SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_choice_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDBENCH_PLUGINS", raising=False)
    monkeypatch.delenv("KDBENCH_STRICT", raising=False)


@pytest.fixture(autouse=True)
def _timed_in_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions in this process: what exports and quantises has tests of its own."""
    forms = {"cpu": (("eager", "float32"),)}
    monkeypatch.setattr("kdbench.speeds.FORMS", forms)
    monkeypatch.setattr("kdbench.speeds.SECONDS", 0.01)


@dataclass(frozen=True)
class Environment:
    """A virtual environment that can import what this one can, and adds to it."""

    folder: Path

    def run(
        self, *command: str, cwd: Path, **values: str
    ) -> subprocess.CompletedProcess[str]:
        """A command with the environment's programs before all others, no network."""
        # Those that pytest's output depends on: what CI sets, and the terminal's width.
        unlike = ("PYTEST_", "CI", "BUILD_NUMBER", "COLUMNS")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(unlike)}
        return subprocess.run(
            command,
            cwd=cwd,
            env=inherited
            | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
            | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            | values,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh one, with kdbench, its plugins and pip from here; skipped without pip."""
    pip = list(entry_points(group="console_scripts", name="pip"))
    if not pip:
        pytest.skip("a plugin is installed with pip, and there is none here")
    folder = tmp_path / "environment"
    venv.create(folder)
    paths = sysconfig.get_paths("venv", {"base": folder, "platbase": folder})
    here = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(paths["purelib"], "here.pth").write_text(here)
    for point in (*pip, *entry_points(group="console_scripts", name="kdbench")):
        program = Path(paths["scripts"], point.name)
        program.write_text(
            f"#!{folder / 'bin' / 'python'}\nfrom {point.module} import {point.attr}\n"
            f"if __name__ == '__main__':\n    raise SystemExit({point.attr}())\n"
        )
        program.chmod(0o755)
    return Environment(folder)


@pytest.fixture(scope="session")
def host() -> Host:
    return Host()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data files, or a skip that says where they were looked for."""
    folder = Path(
        os.environ.get("KDBENCH_DATA")
        or Path(__file__).resolve().parents[2] / "shared" / "data"
    )
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set KDBENCH_DATA to its folder")
    return folder


def digits_suite(host: Host, **changes: object) -> Suite:
    path = host.get("suites", "digits").thing.path
    few = {"epochs": 2, "seeds": 1, "validation": 0.0}
    return changed(read_suite(path), {**few, **changes})


def options(out: Path, **values: object) -> Options:
    known = {
        "out": out,
        "device": "cpu",
        "data_dir": None,
        "download": False,
        "workers": 2,
        "executor": "here",
        "checkpoint_every_s": 60.0,
        "report": False,
    }
    return Options(**{**known, **values})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def run_digits(host: Host) -> Runner:
    """Train the digits suite in this process: failures and records by cell."""

    def run(
        out: Path, plugins: Host | None = None, **changes: object
    ) -> tuple[int, dict[str, Record]]:
        used = plugins or host
        session = Session(used, digits_suite(used, **changes), options(out))
        session.train()
        return len(session.failed), by_cell(out / "digits")

    return run


def by_cell(folder: Path) -> dict[str, Record]:
    """The records of a folder by "pair/label/seed"."""
    return {
        f"{r.run.pair}/{r.run.label}/{r.run.seed}": r for r in load([folder]).records
    }


def bits(record: Record) -> dict[str, object]:
    """Everything of a record that must not depend on when and beside whom it ran."""
    kept = record.model_dump(exclude={"environment", "cost", "finished_at"})
    timed = ("latency", "throughput")
    kept["measures"] = {
        k: v for k, v in kept["measures"].items() if not k.startswith(timed)
    }
    return kept


@pytest.fixture(scope="session")
def helpers() -> dict[str, Callable[..., object]]:
    """Functions of this file, for test modules (which cannot import it)."""
    return {"bits": bits, "by_cell": by_cell, "suite": digits_suite, "options": options}


@pytest.fixture(scope="session")
def whole(
    run_digits: Runner, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Record]:
    """Every strategy of the digits suite on both pairs, two epochs, one seed."""
    failed, records = run_digits(tmp_path_factory.mktemp("whole"))
    assert failed == 0
    return records
