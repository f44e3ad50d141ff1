"""What plugins are written against stays: names, signatures, defaults."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "frozen"
API = runpy.run_path(str(FOLDER / "public_api.py"))
FROZEN = (FOLDER / "api-1.txt").read_text().splitlines()

WHAT_TO_DO = """
Plugins of version 1 use these (tests/frozen/api-1.txt). Put them back: a name, argument
or attribute that is to go is deprecated first, with KdbenchDeprecationWarning, and
stays as docs/plugins.md promises. What is new is added to the file by
`python tests/frozen/public_api.py`."""


def test_everything_of_version_1_is_as_it_was():
    now = API["lines"]()
    problems = API["broken"](FROZEN, now)
    assert not problems, "\n".join([*problems, WHAT_TO_DO])
    new = [line for line in now if line not in FROZEN]
    if new:
        warnings.warn(
            f"{len(new)} lines are not promised yet, such as {new[0]!r}: "
            "python tests/frozen/public_api.py",
            stacklevel=1,
        )


def test_the_file_is_what_the_script_writes():
    assert sorted(set(FROZEN)) == FROZEN


OLD = [
    "class kdbench.Thing(object)",
    "kdbench.Strategy.loss() -> dict[str, Tensor]",
    "kdbench.Strategy.loss(0 batch: Batch)",
    "kdbench.Thing(* name: str)",
    "kdbench.Thing.rate: float = 0.1",
    "kdbench.hookspecs.kdbench_done() -> None",
    "kdbench.hookspecs.kdbench_done(* run: Run)",
    "kdbench.mean() -> Tensor",
    "kdbench.mean(0 x: Tensor)",
]


@pytest.mark.parametrize(
    "line",
    [
        "kdbench.new() -> None",
        "kdbench.new(0 x: Tensor)",
        "kdbench.Thing(* title: str = '')",
        "kdbench.Thing.lines() -> int",
        "kdbench.Strategy.other() -> int",
        "kdbench.hookspecs.kdbench_done(* record: Record)",
        "kdbench.mean(1 dim: int = 0)",
        "kdbench.mean(1 *others: Tensor)",
    ],
)
def test_what_is_added_breaks_nobody(line):
    assert API["broken"](OLD, sorted([*OLD, line])) == []


@pytest.mark.parametrize(
    "line",
    [
        "kdbench.Thing(* title: str)",
        "kdbench.mean(1 dim: int)",
        "kdbench.Strategy.loss(1 step: int)",
        "kdbench.Strategy.loss(1 step: int = 0)",
    ],
)
def test_what_plugins_cannot_know_of_breaks_them(line):
    assert API["broken"](OLD, [*OLD, line]) == [f"a further argument: {line}"]


@pytest.mark.parametrize("line", OLD)
def test_what_is_gone_or_changed_is_named(line):
    left = [other for other in OLD if other != line]
    assert f"gone or changed: {line}" in API["broken"](OLD, [*left, f"{line}, changed"])


def test_the_lines_follow_the_code(monkeypatch):
    """Each kind of line is there, and changes with what it tells of."""
    from kdbench import api, hookspecs

    now = API["lines"]()
    assert "kdbench.Strategy.loss(0 batch: Batch)" in now
    assert "kdbench.Recipe(* epochs: int = 240)" in now
    assert "kdbench.Batch(12 phase: str = '')" in now
    assert "kdbench.Batch.student -> Outputs" in now
    assert "kdbench.soft_kl(2 temperature: float | Tensor = 1.0)" in now
    assert "kdbench.hookspecs.kdbench_run_started(* run: Run)" in now
    assert "kdbench.api.VIEWS has 'mixup'" in now
    assert "kdbench.api.Batch is kdbench.Batch" in now
    assert "kdbench.testing.given: fixture" in now

    def loss(self, batch: api.Batch, step: int) -> None:
        """Another one."""

    monkeypatch.setattr(api.Strategy, "loss", loss)
    monkeypatch.setattr(api, "VIEWS", ("mixup",))
    monkeypatch.delattr(hookspecs, "kdbench_run_started")
    problems = API["broken"](now, API["lines"]())
    assert "gone or changed: kdbench.Strategy.loss() -> dict[str, Tensor]" in problems
    assert "a further argument: kdbench.Strategy.loss(1 step: int)" in problems
    assert "gone or changed: kdbench.api.VIEWS has 'strong'" in problems
    assert (
        "gone or changed: kdbench.hookspecs.kdbench_run_started(* run: Run)" in problems
    )
