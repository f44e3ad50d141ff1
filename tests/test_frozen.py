"""A plugin of version 1, never edited again, still loads, trains and type-checks."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench import hookspecs
from kdbench.config import read_suite
from kdbench.plugins import Host
from kdbench.session import Session
from kdbench.store import load

PLUGIN = Path(__file__).parent / "frozen" / "plugin_v1"
AS_IT_WAS = "a13280c4f1a50766dbb00d65fd5bc3d672e12831086e2fb81ac9e5169282ad80"
"""Of all its files: it is not edited (its README says why)."""


def test_it_is_as_it_was():
    total = hashlib.sha256()
    files = (path for path in PLUGIN.rglob("*") if path.is_file())
    for path in sorted(path for path in files if "__pycache__" not in path.parts):
        total.update(f"{path.relative_to(PLUGIN).as_posix()}\n".encode())
        total.update(path.read_bytes().replace(b"\r\n", b"\n"))
    assert total.hexdigest() == AS_IT_WAS, (
        "the frozen plugin was edited: put it back, and mend what it found in kdbench"
    )


@pytest.fixture(scope="module")
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        yield Host(found=[EntryPoint("plugin_v1", "kdbench_plugin_v1", "kdbench")])


def test_it_loads_with_every_hook(loaded):
    [plugin] = [p for p in loaded.plugins if p.name == "plugin_v1"]
    assert (plugin.status, plugin.error) == ("ok", None)
    assert plugin.notes == []  # nothing of version 1 is deprecated yet
    assert loaded.clashes() == []
    assert plugin.offers == {
        "strategies": [
            "v1_hints",
            "v1_loop",
            "v1_peers",
            "v1_phased",
            "v1_soft",
            "v1_views",
        ],
        "models": ["v1_student", "v1_teacher", "v1wide"],
        "datasets": ["v1_blobs", "v1blobs"],
        "pairs": ["v1-pair"],
        "suites": ["v1"],
        "measures": ["v1_second_best", "v1_spread"],
        "compressions": ["v1_rounded"],
        "executors": ["v1_place"],
        "renderers": ["v1_lines"],
    }
    every = [name for name in vars(hookspecs) if name.startswith("kdbench_")]
    assert plugin.hooks == sorted(set(every) - AFTER_VERSION_1)


AFTER_VERSION_1: set[str] = set()
"""Hooks that came later, which it cannot know of."""


def test_its_suite_trains_measures_and_reports(loaded, tmp_path, helpers):
    import kdbench_plugin_v1 as theirs

    suite = read_suite(loaded.get("suites", "v1").thing.path)
    theirs.HEARD.clear()
    options = helpers["options"](tmp_path, executor="v1_place", speed=False)
    session = Session(loaded, suite, options)
    session.train()
    results = load([tmp_path / "v1"])
    assert {(r.run.label, r.status, r.reason) for r in results.records} == {
        (label, "finished", None)
        for label in (
            "teacher",
            "scratch",
            "v1_soft[temperature=2]",
            "v1_soft[temperature=4->1]",
            "v1_soft@gentle",
            "v1_soft",
            "v1_soft/v1_rounded",
            "v1_hints",
            "v1_peers",
            "v1_views",
            "v1_phased",
            "v1_loop",
        )
    }
    for record in results.records:
        assert 0 <= record.measures["v1_second_best"] <= 100
        assert record.measures["v1_spread"] > 0
        assert len(record.lists["v1_spread_by_class"]) == 3
        if not record.run.compression:
            assert len(record.curves["top1"]) >= 2
    assert sum(theirs.places.COUNTED) > 0
    assert {("started", "v1_loop"), ("epoch 2 top1", "v1_loop")} <= set(theirs.HEARD)
    assert ("finished", "v1_soft/v1_rounded") in theirs.HEARD
    render = loaded.get("renderers", "v1_lines").thing.render
    [file] = render(results, tmp_path)
    assert "v1_hints finished" in file.read_text()


def test_its_sources_find_by_their_prefix(loaded):
    assert loaded.model("v1wide:12").name == "v1wide:12"
    data = loaded.dataset("v1blobs:30").load(None, False)
    assert len(data.train.targets) == 30


@pytest.mark.slow
def test_it_type_checks_against_the_installed_kdbench(tmp_path):
    """As its author does: strictly, without kdbench's own configuration."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            f"--cache-dir={tmp_path}",
            "-p",
            "kdbench_plugin_v1",
        ],
        cwd=PLUGIN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
