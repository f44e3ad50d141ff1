"""Names that more than one plugin has, or that are kdbench's own."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.config import Suite
from kdbench.plan import make_plan
from kdbench.plugins import Host

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from plugging import GOOD, SOURCE, plugin, points


def test_a_name_offered_twice_is_an_error_that_names_both(tmp_path):
    text = GOOD.replace("NAME", "kd")
    host = Host(files=[plugin(tmp_path, "mine", text)])
    with pytest.raises(UserError) as caught:
        host.strategy("kd")
    assert "kdbench-soft-targets" in str(caught.value)
    assert "mine.py" in str(caught.value)
    assert host.strategy("dkd").name == "dkd"


def test_a_plugin_of_the_same_name_is_shadowed(monkeypatch, tmp_path):
    found = points(monkeypatch, tmp_path, one=GOOD)
    host = Host(files=[plugin(tmp_path, "one", GOOD)], found=found)
    assert [p.status for p in host.plugins if p.name == "one"] == ["ok", "shadowed"]
    assert host.strategy("one").name == "one"


def test_two_plugins_of_one_name_are_both_kept_apart(tmp_path):
    (tmp_path / "other").mkdir()
    first = plugin(
        tmp_path,
        "mine",
        GOOD + "\n@hookimpl\ndef kdbench_run_started(run):"
        "\n    raise OSError('heard')\n",
    )
    second = plugin(tmp_path / "other", "mine", GOOD)
    with pytest.raises(UserError, match="another plugin is called 'mine'"):
        Host(files=[first, second], found=[])
    host = Host(files=[first, second, first], found=[], lenient=True)
    mine = [p for p in host.plugins if p.name == "mine"]
    assert [p.status for p in mine] == ["ok", "broken"]
    assert host.strategy("mine").name == "mine"
    assert host.emit("kdbench_run_started", run=None)  # the first one still listens


def test_one_module_under_two_names_is_loaded_once(monkeypatch, tmp_path):
    [one] = points(monkeypatch, tmp_path, one=GOOD)
    host = Host(found=[one, EntryPoint("two", one.value, "kdbench")])
    status = {p.name: p for p in host.plugins}
    assert (status["one"].status, status["two"].status) == ("ok", "broken")
    assert "the plugin 'one' once more" in (status["two"].error or "")
    assert host.strategy("one").name == "one"


def test_one_entry_point_name_of_two_distributions(monkeypatch, tmp_path):
    found = points(monkeypatch, tmp_path, one=GOOD, two=GOOD)
    twice = [found[0], EntryPoint("one", found[1].value, "kdbench")]
    host = Host(found=twice)
    assert [p.status for p in host.plugins if p.name == "one"] == ["ok", "shadowed"]
    assert [n for n in host.names("strategies") if n in ("one", "two")] == ["one"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("NAME", "scratch"), "strategy 'scratch' is kdbench's own"),
        (SOURCE.replace('name="wide"', 'name="timm"'), "model 'timm' is kdbench's own"),
    ],
)
def test_nobody_takes_a_name_of_kdbench_from_everyone(
    monkeypatch, tmp_path, text, says
):
    host = Host(found=points(monkeypatch, tmp_path, taker=text))
    [taker] = [p for p in host.plugins if p.name == "taker"]
    assert taker.status == "broken"
    assert says in (taker.error or "")
    assert host.get("strategies", "scratch").plugin.name == "kdbench.controls"


def test_a_clash_of_two_plugins_stops_only_who_needs_the_name(monkeypatch, tmp_path):
    text = """
from kdbench import Model, hookimpl
@hookimpl
def kdbench_models():
    return [Model(name="theirs", summary="", build=None, taps={}, classifier="")]
"""
    found = points(monkeypatch, tmp_path, one=text, two=text)
    host = Host(found=found)
    [said] = host.clashes()
    assert said.startswith("model 'theirs' is offered by (unknown) - (")
    with pytest.raises(UserError, match="is offered by"):
        host.model("theirs")
    suite = Suite(
        name="a", datasets=["digits"], pairs=["digits-mlp"], strategies=["scratch"]
    )
    assert make_plan(suite, host, {}).todo
