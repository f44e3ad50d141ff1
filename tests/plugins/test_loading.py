"""What a host loads, whose it is, and by which code and name it is known."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.plugins import Host, code_of

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from plugging import GOOD, SOURCE, plugin, points


def test_a_file_is_loaded_and_attributed(tmp_path):
    host = Host(files=[plugin(tmp_path, "mine", GOOD)], found=[])
    offer = host.get("strategies", "mine")
    assert offer.plugin.distribution == "(file)"
    assert offer.plugin.path == str(tmp_path / "mine.py")


def test_the_environment_limits_what_loads(monkeypatch, tmp_path):
    found = points(monkeypatch, tmp_path, one=GOOD, two=GOOD)
    monkeypatch.setenv("KDBENCH_PLUGINS", "one")
    host = Host(found=found)
    assert {p.name: p.status for p in host.plugins}["two"] == "disabled"
    assert "two" not in host.names("strategies")
    monkeypatch.setenv("KDBENCH_PLUGINS", "onne")
    with pytest.raises(UserError, match="did you mean 'one'"):
        Host(found=found)


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


def test_a_hook_under_another_name_and_one_of_the_future(tmp_path):
    text = (
        GOOD.replace("@hookimpl", '@hookimpl(specname="kdbench_strategies")').replace(
            "def kdbench_strategies", "def mine"
        )
        + "\n@hookimpl(optionalhook=True)\ndef kdbench_of_the_future():\n    pass\n"
    )
    host = Host(files=[plugin(tmp_path, "mine", text)], found=[])
    assert host.strategy("mine").name == "mine"
    [found] = [p for p in host.plugins if p.name == "mine"]
    assert found.hooks == ["kdbench_strategies"]
