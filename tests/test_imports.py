"""The folders are the data flow: imports point one way, and start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kdbench

ROOT = Path(kdbench.__file__).parent
LOWEST = {"records", "cards", "tasks", "offers", "ramps", "batches"}
API = LOWEST | {"api", "losses"}
LOWER = API | {"hookspecs", "admission", "provenance", "vision", "plugins", "config"}
LOWER |= {"loading", "requirements", "settings"}
LOWER |= {"combining", "selections", "choices"}
LOWER |= {"atomic", "store", "stats", "data", "models", "suites", "controls"}

ALLOWED = {
    "records": set(),
    "cards": {"records"},
    "citations": set(),
    "tasks": {"records"},
    "offers": {"records", "tasks"},
    "ramps": set(),
    "losses": set(),
    "batches": {"records", "tasks", "offers"},
    "api": LOWEST,
    "combining": API,
    "selections": API,
    "choices": API | {"plugins", "selections"},
    "hookspecs": API,
    "admission": API | {"hookspecs"},
    "provenance": API | {"combining"},
    "vision": set(),
    "cache": set(),
    "requirements": set(),
    "loading": API | {"admission", "requirements"},
    "plugins": API
    | {"hookspecs", "admission", "combining", "loading", "provenance"}
    | {"settings", "untouched"},
    "config": API | {"requirements"},
    "atomic": set(),
    "store": API | {"atomic"},
    "stats": API,
    "frames": API | {"store"},
    "controls": API | {"scratch"},
    "scratch": API,
    "suites": API,
    "data": API | {"vision", "cache"},
    "models": API | {"vision"},
    "pairing": API,
    "layout": LOWER | {"pairing"},
    "plan": LOWER | {"pairing", "layout"},
    "engine": LOWER,
    "forms": API,
    "compressions": API | {"forms"},
    "measure": LOWER | {"engine", "forms"},
    "students": LOWER | {"engine", "measure", "recording", "weights"},
    "exporting": LOWER | {"engine", "forms", "recording", "students", "weights"},
    "randomness": set(),
    "settings": set(),
    "untouched": {"randomness", "settings"},
    "testing": API | {"randomness", "conformance", "plugins"},
    "pytest_plugin": {"testing"},
    "report": API | {"store", "stats"},
    "weights": API,
    "memory": LOWER | {"plan"},
    "recording": LOWER | {"engine", "weights"},
    "finishing": API | {"engine"},
    "job": {"plan"},
    "speeds": LOWER | {"engine", "finishing", "measure", "plan"},
    "prepared": LOWER
    | {"engine", "finishing", "job", "measure", "recording", "students"},
    "perform": LOWER | {"engine", "job", "measure", "memory", "prepared", "recording"},
    "claims": LOWER | {"recording", "job"},
    "stopping": API,
    "options": set(),
    "carrying": LOWER
    | {"cache", "claims", "engine", "recording", "stopping", "teachers", "weights"},
    "teachers": LOWER | {"cache", "engine", "recording", "weights"},
    "execute": LOWER
    | {"plan", "engine", "measure", "memory", "recording", "job"}
    | {"claims", "perform", "workers"},
    "reproducing": LOWER | {"plan", "layout", "engine", "execute", "job", "report"},
    "workers": LOWER
    | {"engine", "recording", "job", "execute"}
    | {"claims", "perform", "stopping"},
}
"""Part -> the parts it may import. `cli` and what only it calls may import anything."""

TOP = {"cli", "session", "progress", "listing", "catalogue", "teacher_cli", "__init__"}
TOP |= {"profiling", "profile_cli", "profiles", "export_cli", "report_cli"}
TOP |= {"reproduce_cli", "reference"}
TOP |= {"check_cli", "conformance", "new_cli", "plugins_cli", "scaffold"}


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Parts of kdbench that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "kdbench":
            names = [f"kdbench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {n.split(".")[1] for n in names if n.startswith("kdbench.")}
    return found - {"__version__"}


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = part_of(path)
    if part in TOP:
        return
    assert imports(path) <= ALLOWED[part] | {part}
    assert not imports(path) & {"cli", "session"}


def test_only_one_file_imports_torchvision():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "torchvision" not in [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "torchvision"
    # vision.py itself goes through importlib, behind its guard
    assert 'import_module(f"torchvision' in (ROOT / "vision.py").read_text()


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_imports_neither_torch_nor_plugins():
    code = """
import sys
sys.argv = ["kdbench", "run", "--help"]
from kdbench.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
heavy = {"torch", "numpy", "pandas", "pluggy", "kdbench.plugins"}
print("loaded:", sorted((heavy | {"kdbench_soft_targets"}) & set(sys.modules)))
"""
    assert run_python(code).endswith("loaded: []\n")


def test_records_tables_and_reports_need_no_torch():
    code = """
import sys
sys.modules["torch"] = None
import kdbench.store, kdbench.stats, kdbench.report.html, kdbench.report.plots
import kdbench.report.markdown, kdbench.report.terminal, kdbench.config
from kdbench import Strategy, load_results
"""
    run_python(code)


def test_public_names_exist():
    for name in kdbench.__all__:
        thing = getattr(kdbench, name)
        assert name in ("hookimpl", "KINDS") or thing.__name__ == name


def test_files_and_lines_stay_readable():
    long = [p.name for p in FILES if len(p.read_text().splitlines()) > 370]
    assert long == []
