"""Checks of what is to run, and of what runs it: suites and executors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kdbench.api import Executor, SuiteFile
from kdbench.execute import here

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings, subject

SUITE = """
datasets = ["digits"]
pairs = ["digits-mlp"]
strategies = ["kd", "{}"]
"""


@pytest.mark.parametrize(
    ("name", "text", "wrong", "says"),
    [
        ("mine", SUITE.format("dkd"), set(), ""),
        ("mine", SUITE.format("dkdd"), {"resolves-names"}, "did you mean"),
        ("mine", SUITE.format("kd[heat=2]"), {"resolves-names"}, "heat"),
        ("mine", SUITE.replace("pairs", "pears"), {"reads"}, "pears"),
        ("yours", SUITE.format("dkd"), {"reads"}, "offered as 'yours'"),
    ],
)
def test_suites(tmp_path, name, text, wrong, says):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    found = findings(subject("suite", SuiteFile(name=name, path=path)))
    assert failed(found) == wrong
    assert all(says in found[check].said for check in wrong)


def test_a_suite_that_is_not_there_is_told(tmp_path):
    thing = SuiteFile(name="gone", path=tmp_path / "gone.toml")
    assert failed(findings(subject("suite", thing))) == {"reads"}


def lazy(jobs, workers, host, emit, stop):
    """Leaves out the last job."""
    here(jobs[:-1], workers, host, emit, stop)


def silent(jobs, workers, host, emit, stop):
    here(jobs, workers, host, lambda event: None, stop)


def deaf(jobs, workers, host, emit, stop):
    here(jobs, workers, host, emit, lambda: False)


@pytest.mark.parametrize(
    ("start", "wrong", "says"),
    [
        (here, set(), ""),
        (lazy, {"runs-jobs"}, "no record of scratch"),
        (silent, {"runs-jobs"}, "did not emit the record of"),
        (deaf, {"stops"}, "2 records"),
    ],
)
def test_executors(start, wrong, says):
    thing = Executor(name="mine", summary="elsewhere", start=start)
    found = findings(subject("executor", thing))
    assert failed(found) == wrong
    assert all(says in found[check].said for check in wrong)
