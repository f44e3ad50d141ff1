"""The plugin host: status, isolation, clashes, files."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.plugins import Host, code_of

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


def test_a_file_is_loaded_and_attributed(tmp_path):
    host = Host(files=[plugin(tmp_path, "mine", GOOD)], found=[])
    offer = host.get("strategies", "mine")
    assert offer.plugin.distribution == "(file)"
    assert offer.plugin.path == str(tmp_path / "mine.py")


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Host(files=[tmp_path / "none.py"], found=[])


def test_a_name_offered_twice_is_an_error_that_names_both(tmp_path):
    text = GOOD.replace("NAME", "kd")
    host = Host(files=[plugin(tmp_path, "mine", text)])
    with pytest.raises(UserError) as caught:
        host.strategy("kd")
    assert "kdbench-soft-targets" in str(caught.value)
    assert "mine.py" in str(caught.value)
    assert host.strategy("dkd").name == "dkd"


def test_an_unknown_name_mentions_broken_plugins(monkeypatch, tmp_path):
    host = Host(found=points(monkeypatch, tmp_path, bad="import nothing_like_it"))
    with pytest.raises(UserError, match=r"broken plugins: bad \(ModuleNotFoundError"):
        host.strategy("mine")


def test_the_environment_limits_what_loads(monkeypatch, tmp_path):
    found = points(monkeypatch, tmp_path, one=GOOD, two=GOOD)
    monkeypatch.setenv("KDBENCH_PLUGINS", "one")
    host = Host(found=found)
    assert {p.name: p.status for p in host.plugins}["two"] == "disabled"
    assert "two" not in host.names("strategies")
    monkeypatch.setenv("KDBENCH_PLUGINS", "onne")
    with pytest.raises(UserError, match="did you mean 'one'"):
        Host(found=found)


def test_a_plugin_of_the_same_name_is_shadowed(monkeypatch, tmp_path):
    found = points(monkeypatch, tmp_path, one=GOOD)
    host = Host(files=[plugin(tmp_path, "one", GOOD)], found=found)
    assert [p.status for p in host.plugins if p.name == "one"] == ["ok", "shadowed"]
    assert host.strategy("one").name == "one"


def test_an_event_that_raises_is_reported_once(tmp_path):
    text = GOOD + "\n@hookimpl\ndef kdbench_run_started(run):\n    raise OSError('x')\n"
    host = Host(files=[plugin(tmp_path, "noisy", text)], found=[])
    first = host.emit("kdbench_run_started", run=None)
    assert first == ["plugin noisy: kdbench_run_started raised OSError: x"]
    assert host.emit("kdbench_run_started", run=None) == []


def test_every_bundled_plugin_is_ok(host):
    assert {p.status for p in host.plugins} == {"ok"}
    names = {p.distribution for p in host.plugins}
    assert names == {
        "kdbench",
        "kdbench-soft-targets",
        "kdbench-feature-matching",
        "kdbench-pseudo-label",
        "kdbench-mutual-learning",
        "kdbench-sklearn",
        "kdbench-text",
        "kdbench-audio",
        "kdbench-compression",
    }


def test_source_hash_follows_what_a_strategy_imports(monkeypatch, tmp_path):
    def hashed(helper: str, neighbour: str, name: str) -> str:
        package = tmp_path / name / f"pack_{name}"
        package.mkdir(parents=True)
        monkeypatch.syspath_prepend(str(package.parent))
        (package / "helper.py").write_text(helper)
        (package / "neighbour.py").write_text(neighbour)
        text = GOOD.replace("NAME", "it")
        (package / "it.py").write_text(text + "\nfrom . import helper\n")
        (package / "__init__.py").write_text(
            "from .it import kdbench_strategies\nfrom . import neighbour\n"
        )
        found = [EntryPoint(name, f"pack_{name}", "kdbench")]
        value: str = code_of(Host(found=found).strategy("it"))
        return value

    # the hash holds the module names, so only packages of one name are comparable
    one = hashed("x = 1", "y = 1", "a")
    import sys

    def again(helper: str, neighbour: str) -> str:
        from kdbench.provenance import source_hash

        package = tmp_path / "a" / "pack_a"
        (package / "helper.py").write_text(helper)
        (package / "neighbour.py").write_text(neighbour)
        source_hash.cache_clear()
        assert "pack_a.it" in sys.modules
        return source_hash("pack_a.it")

    assert again("x = 1", "y = 2") == one
    assert again("x = 2", "y = 1") != one


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


def test_a_source_finds_models_by_a_prefix(tmp_path):
    host = Host(files=[plugin(tmp_path, "wide", SOURCE)], found=[])
    found = host.get("models", "wide:7")
    assert (found.thing.name, found.plugin.name) == ("wide:7", "wide")
    assert host.model("wide:7") is found.thing
    assert code_of(found.thing) != code_of(host.model("wide:8"))
    assert [o.thing.name for o in host.sources("models")].count("wide") == 1
    assert "wide" not in host.names("models")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wide:x", "wide:x is no width"),
        ("wide:broken", "OSError: no disk"),
        ("wide:nothing", "must return a Model of that name, not None"),
        ("wied:7", "did you mean 'wide:...'"),
    ],
)
def test_what_a_source_cannot_find_is_said(tmp_path, name, says):
    host = Host(files=[plugin(tmp_path, "wide", SOURCE)], found=[])
    with pytest.raises(UserError) as caught:
        host.model(name)
    assert says in str(caught.value)
