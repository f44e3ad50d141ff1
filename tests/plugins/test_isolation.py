"""A plugin that is broken or misbehaves is named, and stops nobody else."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench.api import UserError, hookimpl
from kdbench.plugins import Host

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from plugging import GOOD, plugin, points

BROKEN = {
    "import error": ("import nothing_of_this_name", "ModuleNotFoundError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError"),
    "misspelt hook": (
        GOOD.replace("kdbench_strategies", "kdbench_strategy"),
        "did you mean 'kdbench_strategies'?",
    ),
    "unmarked hook": (GOOD.replace("@hookimpl", ""), "lacks the @kdbench.hookimpl"),
    "unknown argument": (
        GOOD.replace("kdbench_strategies()", "kdbench_strategies(nothing)"),
        "nothing",
    ),
    "not a list": (GOOD.replace("[Mine]", "Mine"), "must return a list"),
    "not a class": (GOOD.replace("[Mine]", "[Mine()]"), "classes derived from"),
    "not a record": (
        GOOD.replace("kdbench_strategies", "kdbench_models"),
        "must return Model records",
    ),
    "raises": (GOOD.replace("return [Mine]", "raise OSError('no disk')"), "no disk"),
    "no name": (GOOD.replace('name = "NAME"', ""), "has no name"),
    "name with brackets": (GOOD.replace("NAME", "a[b]"), "is no name"),
    "no dataclass": (
        GOOD.replace("@dataclass(frozen=True, kw_only=True)", ""),
        "must be a @dataclass",
    ),
    "no default": (GOOD.replace("weight: float = 1.0", "weight: float"), "default"),
    "annotated name": (
        GOOD.replace('name = "NAME"', 'name: str = "NAME"'),
        "without an annotation",
    ),
    "default that JSON lacks": (
        GOOD.replace("weight: float = 1.0", "weight: float = float('inf')"),
        "must be a finite number",
    ),
    "no loss": (GOOD.replace("def loss", "def lost"), "must override loss()"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_plugin_is_named_and_stops_nobody(monkeypatch, tmp_path, mistake):
    text, says = BROKEN[mistake]
    host = Host(found=points(monkeypatch, tmp_path, bad=text, good=GOOD))
    status = {p.name: p for p in host.plugins}
    assert status["bad"].status == "broken"
    assert says in (status["bad"].error or "")
    assert status["bad"].traceback
    assert status["good"].status == "ok"
    assert host.strategy("good").name == "good"


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_file_is_bad_input(tmp_path, mistake):
    text, says = BROKEN[mistake]
    with pytest.raises(UserError) as caught:
        Host(files=[plugin(tmp_path, "bad", text)], found=[])
    assert says in str(caught.value)
    assert "bad.py" in str(caught.value)


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Host(files=[tmp_path / "none.py"], found=[])


def test_an_unknown_name_mentions_broken_plugins(monkeypatch, tmp_path):
    host = Host(found=points(monkeypatch, tmp_path, bad="import nothing_like_it"))
    with pytest.raises(UserError, match=r"broken plugins: bad \(ModuleNotFoundError"):
        host.strategy("mine")


def test_an_event_that_raises_is_reported_once(tmp_path):
    text = GOOD + "\n@hookimpl\ndef kdbench_run_started(run):\n    raise OSError('x')\n"
    host = Host(files=[plugin(tmp_path, "noisy", text)], found=[])
    first = host.emit("kdbench_run_started", run=None)
    assert first == ["plugin noisy: kdbench_run_started raised OSError: x"]
    assert host.emit("kdbench_run_started", run=None) == []


class Touchy:
    """A plugin object that lets nobody look at what it has not."""

    def __getattr__(self, name):
        raise RuntimeError(f"do not ask for {name}")

    @property
    def costly(self):
        raise RuntimeError("nobody asked for it")

    @hookimpl
    def kdbench_run_started(self, run):
        raise SystemExit(3)


def test_a_touchy_plugin_object_is_not_touched():
    host = Host(modules=[Touchy()], found=[])
    [found] = [p for p in host.plugins if p.distribution == "(module)"]
    assert (found.name, found.status, found.error) == ("Touchy", "ok", None)
    assert host.emit("kdbench_run_started", run=None) == [
        "plugin Touchy: kdbench_run_started raised SystemExit: 3"
    ]


UNSPEAKABLE = """
class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")

raise Unspeakable
"""

ODD = {
    "given twice": (GOOD.replace("[Mine]", "[Mine, Mine]"), "hands in 'bad' 2 times"),
    "endless": (
        GOOD.replace("return [Mine]", "while True:\n        yield Mine"),
        "kdbench_strategies() yields",
    ),
    "endless, made elsewhere": (
        "import itertools\n" + GOOD.replace("[Mine]", "itertools.repeat(Mine)"),
        "must return a list of Strategy, not repeat",
    ),
    "async": (
        GOOD.replace("def kdbench_str", "async def kdbench_str"),
        "kdbench_strategies() is async",
    ),
    "event that yields": (
        GOOD + "\n@hookimpl\ndef kdbench_run_started(run):\n    yield\n",
        "kdbench_run_started() yields",
    ),
    "wrapper": (
        GOOD + "\n@hookimpl(wrapper=True)\ndef kdbench_run_started(run):\n"
        "    return (yield)\n",
        "kdbench_run_started() is a hook wrapper",
    ),
    "renamed to nothing": (
        GOOD.replace("@hookimpl", '@hookimpl(specname="kdbench_strategy")'),
        "'kdbench_strategy' is not a hook of kdbench; did you mean",
    ),
    "error without words": (UNSPEAKABLE, "Unspeakable: (its message cannot be shown)"),
    "deep": ("def f():\n    f()\nf()", "RecursionError"),
}


@pytest.mark.parametrize("mistake", ODD)
def test_an_odd_plugin_is_named_and_stops_nobody(monkeypatch, tmp_path, mistake):
    text, says = ODD[mistake]
    host = Host(found=points(monkeypatch, tmp_path, bad=text, good=GOOD))
    status = {p.name: p for p in host.plugins}
    assert status["bad"].status == "broken"
    assert says in (status["bad"].error or "")
    assert host.names("strategies").count("bad") == 0
    assert host.strategy("good").name == "good"


def test_a_circular_import_is_named(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "round_a.py").write_text("from round_b import b\na = 1\n" + GOOD)
    (tmp_path / "round_b.py").write_text("from round_a import a\nb = 1\n")
    host = Host(found=[EntryPoint("round", "round_a", "kdbench")])
    [found] = [p for p in host.plugins if p.name == "round"]
    assert "partially initialized module 'round_a'" in (found.error or "")


def test_what_a_plugin_prints_goes_to_stderr(tmp_path, capsys):
    text = "print('hello')\n" + GOOD.replace(
        "return [Mine]", "print('you'); return [Mine]"
    )
    Host(files=[plugin(tmp_path, "chatty", text)], found=[])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "hello\nyou\n"


def test_a_file_that_fails_leaves_no_half_of_a_module(tmp_path):
    path = plugin(tmp_path, "half", "import nothing_of_this_name")
    with pytest.raises(UserError) as caught:
        Host(files=[path], found=[])
    assert "kdbench_file_half" not in sys.modules
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)  # for --debug


def test_a_lenient_host_keeps_a_broken_file_with_its_traceback(tmp_path):
    path = plugin(tmp_path, "half", "import nothing_of_this_name")
    host = Host(files=[path], found=[], lenient=True)
    [found] = [p for p in host.plugins if p.name == "half"]
    assert found.status == "broken"
    assert "half.py" in (found.traceback or "")
