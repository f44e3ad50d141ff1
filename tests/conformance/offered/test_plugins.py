"""Checks of a plugin: that it loads, requires kdbench, and has names of its own."""

from __future__ import annotations

import dataclasses
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench.conformance.targets import PluginSubject
from kdbench.conformance.tried import Handed, ours
from kdbench.plugins import Host

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts distributions of one module each where Python finds them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def install(module, text, requires=("kdbench>=0.1",)):
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0"]
        lines += [f"Requires-Dist: {one}" for one in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[kdbench]\n{module} = {module}\n")

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def of_plugin(name, module=None):
    """All checks of an installed plugin; its entry point may name another module."""
    from importlib.metadata import distribution, entry_points

    points = [p for p in entry_points(group="kdbench") if p.name == name]
    if module:
        points = [EntryPoint(name, module, "kdbench")]
        object.__setattr__(points[0], "dist", distribution(name))
    host = Host(only=[name], found=points)
    plugin = next(p for p in host.plugins if p.name == name)
    return findings(PluginSubject(host, plugin), "plugin")


GOOD = """
from kdbench import Pair, hookimpl

@hookimpl
def kdbench_pairs():
    return [Pair(name="{}", teachers=("mlp_32",), students=("mlp_5",))]
"""


def test_a_plugin_that_is_right_passes(installed):
    installed("fine_kd", GOOD.format("fine-pair"))
    assert {f.status for f in of_plugin("fine_kd").values()} == {"passed"}


def test_a_plugin_at_hand_is_no_distribution():
    host = ours(Handed())
    plugin = next(p for p in host.plugins if p.name == "handed")
    found = findings(PluginSubject(host, plugin), "plugin")
    assert found["declares-kdbench"].status == "does not apply"


def test_one_that_offers_nothing_is_told():
    host = ours(Handed())
    plugin = next(p for p in host.plugins if p.name == "handed")
    found = findings(PluginSubject(host, plugin), "plugin")
    assert "empty lists" in found["loads"].said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_like_it", ["pip install nothing_like_it", "`dependencies`"]),
        ("from kdbench import hookimp", ["did you mean 'hookimpl'?"]),
        (
            "def helper():\n    return 1 / 0\n\nhelper()",
            ["ZeroDivisionError", "wrong_kd.py:2, in helper: return 1 / 0"],
        ),
        (
            "import json\njson.loads('{')",
            ["JSONDecodeError", "wrong_kd.py:2, in <module>: json.loads('{')"],
        ),
        ("def f(:\n    pass", ["SyntaxError", "wrong_kd.py:1: def f(:"]),
        (
            GOOD.format("x").replace("kdbench_pairs", "kdbench_pair"),
            ["did you mean 'kdbench_pairs'?"],
        ),
        ("x = 1", ["it has no hook"]),
        (
            GOOD.format("x") + "\ndef kdbench_modles():\n    return []\n",
            ["kdbench_modles() is no hook", "did you mean 'kdbench_models'?"],
        ),
        (GOOD.format("digits-mlp"), ["'digits-mlp' is kdbench's own"]),
    ],
)
def test_what_does_not_load_is_told_why(installed, text, says):
    installed("wrong_kd", text)
    found = of_plugin("wrong_kd")
    assert failed(found) == {"loads"}
    for words in says:
        assert words in found["loads"].said
    assert "kdbench/loading.py" not in found["loads"].said  # no frame of ours


def test_an_entry_point_without_its_module_is_told(installed):
    installed("moved_kd", "x = 1")
    found = of_plugin("moved_kd", "moved_kds")
    assert "the entry point names 'moved_kds'" in found["loads"].said


def test_a_name_that_another_plugin_offers_is_told_with_both(installed):
    installed("one_kd", GOOD.format("same-pair"))
    installed("other_kd", GOOD.format("same-pair"))
    found = of_plugin("one_kd")
    assert failed(found) == {"own-names"}
    for words in ("pair 'same-pair'", "other_kd 1.0", "one_kd 1.0"):
        assert words in found["own-names"].said


def test_a_plugin_in_anothers_place_is_told(installed):
    installed("one_kd", GOOD.format("a-pair"))
    host = Host(only=["audio"])
    plugin = next(p for p in host.plugins if p.name == "audio")
    shadowed = dataclasses.replace(plugin, status="shadowed", error="another has it")
    found = findings(PluginSubject(host, shadowed), "plugin")
    assert failed(found) == {"own-names"}
    assert "another has it" in found["own-names"].said


@pytest.mark.parametrize(
    ("requires", "says"),
    [
        ([], "does not require kdbench"),
        (["torch>=2"], "does not require kdbench"),
        (["KDBench"], "of any version"),
    ],
)
def test_what_requires_no_version_of_kdbench_is_told(installed, requires, says):
    installed("loose_kd", GOOD.format("a-pair"), requires)
    found = of_plugin("loose_kd")
    assert failed(found) == {"declares-kdbench"}
    assert says in found["declares-kdbench"].said


def test_a_plugin_for_another_kdbench_is_told(installed):
    installed("old_kd", GOOD.format("a-pair"), ["kdbench>=99"])
    said = of_plugin("old_kd")["declares-kdbench"].said
    assert "requires kdbench>=99, and this is" in said
