"""The kit as pytest fixtures, found without any import."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kdbench_soft_targets.kd import SoftTargets

import kdbench.testing
from kdbench.api import UserError
from kdbench.conformance import targets
from kdbench.conformance.checks import Check, checks_of
from kdbench.conformance.trainings import Subject
from kdbench.loading import import_file
from kdbench.testing import CHECKS, seeded

MUSEUM = Path(__file__).parents[1] / "museum"
DESCRIBED = ("cited", "typed", "documented", "round-trip", "plain-names")

TESTS = """
import pytest
import torch
from kdbench_soft_targets.kd import SoftTargets

from kdbench.testing import CHECKS

{greek}


@pytest.mark.parametrize("check", [c for c in CHECKS if c in {described}])
def test_sound(check_strategy, check):
    check_strategy(SoftTargets, check)


def test_mistaken(check_strategy):
    check_strategy(GreekLetter, "plain-names", "typed")


def test_a_plugin(check_plugin):
    check_plugin("kd", "cited")


def test_the_others(given, assert_same, assert_trains):
    batch = given.batch()
    assert_trains(SoftTargets(), batch)
    assert_same(torch.square, lambda x: x * x, batch.student.logits.sum())
"""


@pytest.fixture
def greek():
    module = import_file(MUSEUM / "greek_letter.py")
    yield module
    sys.modules.pop(module.__name__)


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    monkeypatch.setattr(kdbench.testing, "_TARGETS", {})


def test_a_project_needs_no_conftest(tmp_path):
    source = (MUSEUM / "greek_letter.py").read_text(encoding="utf-8")
    file = tmp_path / "test_mine.py"
    file.write_text(TESTS.format(greek=source, described=DESCRIBED))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "1 failed, 7 passed" in done.stdout, done.stdout
    [check] = [c for c in checks_of("strategy") if c.name == "plain-names"]
    assert "strategy greek_letter: plain-names: a letter for a name: alpha" in (
        done.stdout
    )
    for text in (check.what, check.why, check.fix):
        assert text in done.stdout


def test_the_plugin_of_pytest_is_installed_and_light():
    points = distribution("kdbench").entry_points.select(group="pytest11")
    assert [(p.name, p.value) for p in points] == [("kdbench", "kdbench.pytest_plugin")]
    program = """
import sys
import kdbench.pytest_plugin
heavy = {"torch", "numpy", "pandas", "pydantic", "kdbench.testing", "kdbench.api"}
assert not heavy & {*sys.modules}, heavy & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_adapters_draw_is_seeded_and_then_as_before():
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded() as given:
            drawn.append((given.normal(3), torch.nn.Linear(3, 2).weight))
        torch.testing.assert_close(torch.get_rng_state(), before)
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)


def test_the_names_of_all_checks():
    assert tuple(check.name for check in checks_of("strategy")) == CHECKS
    with pytest.raises(AttributeError, match="no attribute 'CHECK'"):
        kdbench.testing.CHECK  # noqa: B018


def test_a_strategy_that_passes(check_strategy):
    check_strategy(SoftTargets, *DESCRIBED)


def test_every_failure_is_told_in_full(check_strategy, greek, monkeypatch):
    kind = greek.GreekLetter
    monkeypatch.setattr(kind, "paper", "")
    with pytest.raises(pytest.fail.Exception) as caught:
        check_strategy(kind, *DESCRIBED)
    said = str(caught.value)
    assert said.startswith("strategy greek_letter: cited: `paper` is empty")
    assert "\n\nstrategy greek_letter: plain-names: a letter for a name" in said
    assert said.count("\n  expected: ") == said.count("\n  fix: ") == 2
    check_strategy(kind, "typed")


def test_a_check_that_there_is_not(check_strategy, check_plugin):
    with pytest.raises(UserError, match="unknown check 'plainnames'"):
        check_strategy(SoftTargets, "plainnames")
    with pytest.raises(UserError, match="unknown target 'kdx'"):
        check_plugin("kdx")


def test_a_plugin_and_all_it_offers(check_plugin, greek):
    check_plugin(greek, "loads", "cited")
    with pytest.raises(pytest.fail.Exception, match="strategy greek_letter: plain"):
        check_plugin(greek, "loads", "plain-names")
    broken = ModuleType("a_broken_plugin")
    broken.kdbench_strategies = list
    with pytest.raises(pytest.fail.Exception, match="plugin a_broken_plugin: loads: "):
        check_plugin(broken)


def test_what_is_trained_is_kept(check_strategy, monkeypatch):
    """A test for each check costs no more trainings than one for all of them."""
    trained = []
    asking = [
        Check(
            name, "strategy", "What.", "Why.", "Fix.", lambda subject: subject.train()
        )
        for name in ("first", "second")
    ]
    monkeypatch.setattr(
        Subject, "_trained", lambda self, *what: trained.append(self) or "a trial"
    )
    monkeypatch.setattr(
        "kdbench.conformance.examination.checks_of", lambda kind: asking
    )
    for name in ("first", "second", "first"):
        check_strategy(SoftTargets, name)
    check_strategy(SoftTargets)
    assert len(trained) == 1


def test_a_plugin_is_resolved_once(check_plugin, monkeypatch):
    found = []
    monkeypatch.setattr(
        targets,
        "find",
        lambda text, find=targets.find: found.append(text) or find(text),
    )
    for name in ("cited", "typed"):
        check_plugin("kd", name)
    assert found == ["kd"]
