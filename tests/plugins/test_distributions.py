"""What a plugin's distribution requires, and what of it is deprecated."""

from __future__ import annotations

import sys
import warnings
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench import __version__, hookspecs
from kdbench.api import KdbenchDeprecationWarning
from kdbench.loading import Plugin
from kdbench.plugins import Host

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from plugging import GOOD, plugin


def distribution(
    folder: Path, name: str, text: str, *requires: str
) -> list[EntryPoint]:
    """The entry points of a distribution as pip leaves it: metadata and one module."""
    module = f"{name}_{abs(hash(folder)) % 10**8}"
    plugin(folder, module, text.replace("NAME", name))
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n{needs}"
    )
    (info / "entry_points.txt").write_text(f"[kdbench]\n{name} = {module}\n")
    return list(metadata.Distribution.at(info).entry_points)


def loaded(monkeypatch, folder: Path, text: str, *requires: str) -> Plugin:
    """The status of a plugin of a distribution with these requirements."""
    monkeypatch.syspath_prepend(str(folder))
    host = Host(found=distribution(folder, "theirs", text, *requires))
    [found] = [p for p in host.plugins if p.name == "theirs"]
    return found


LEAVES_A_MARK = "import sys\nsys.kdbench_mark = True\n" + GOOD


@pytest.mark.parametrize(
    ("requirement", "wanted"),
    [
        ("kdbench>=9", "kdbench>=9"),
        ("KDBench<0.1", "KDBench<0.1"),
        ("kdbench[onnx]~=0.0.1", "kdbench[onnx]~=0.0.1"),
        ("kdbench>=9; python_version > '3'", "kdbench>=9"),
    ],
)
def test_a_plugin_for_another_kdbench_is_not_imported(
    monkeypatch, tmp_path, requirement, wanted
):
    monkeypatch.setattr("sys.kdbench_mark", False, raising=False)
    found = loaded(monkeypatch, tmp_path, LEAVES_A_MARK, "torch", requirement)
    assert found.status == "broken"
    assert found.error == (
        f'needs {wanted}, this is {__version__}: pip install "{wanted}", or another '
        "version of theirs"
    )
    assert not sys.kdbench_mark


@pytest.mark.parametrize(
    "requirement",
    [
        "kdbench>=0.1",
        "kdbench",
        "kdbench>=9; extra == 'future'",
        "kdbench>=9; python_version < '3'",
        "kdbench-of-others>=9",
    ],
)
def test_a_plugin_for_this_kdbench_is_imported(monkeypatch, tmp_path, requirement):
    found = loaded(monkeypatch, tmp_path, GOOD, requirement)
    assert (found.status, found.error) == ("ok", None)
    assert (found.distribution, found.version) == ("theirs", "1.5")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch, tmp_path
):
    text = "import nothing_of_this_name\n" + GOOD
    needs = ("torch", "nothing-of>=1,<3", "other; extra == 'more'", "gone; os_name==''")
    found = loaded(monkeypatch, tmp_path, text, *needs)
    assert found.error == (
        "ModuleNotFoundError: No module named 'nothing_of_this_name'; theirs requires "
        'nothing-of<3,>=1: pip install "nothing-of<3,>=1"'
    )
    assert "import nothing_of_this_name" in (found.traceback or "")


def test_an_import_that_fails_though_all_is_installed_is_told_as_it_is(
    monkeypatch, tmp_path
):
    found = loaded(monkeypatch, tmp_path, "import nothing_of_this_name", "torch")
    assert found.error == "ModuleNotFoundError: No module named 'nothing_of_this_name'"


def test_metadata_that_cannot_be_read_breaks_that_plugin_alone(monkeypatch, tmp_path):
    found = loaded(monkeypatch, tmp_path, GOOD, "torch >>> 1")
    assert found.status == "broken"
    assert "'torch >>> 1' is no requirement" in (found.error or "")


@pytest.fixture
def deprecated(monkeypatch):
    """A hook that is on its way out, and an argument of another."""

    def kdbench_old(run: object) -> None:
        """Was useful once."""

    def kdbench_run_finished(record: object, old: object) -> None:
        """As it is, with an argument more."""

    gone = KdbenchDeprecationWarning("kdbench_old goes in 9.0: use kdbench_run_started")
    marker = hookspecs.hookspec(warn_on_impl=gone)
    monkeypatch.setattr(hookspecs, "kdbench_old", marker(kdbench_old), raising=False)
    argument = KdbenchDeprecationWarning("argument old goes in 9.0")
    marker = hookspecs.hookspec(warn_on_impl_args={"old": argument})
    changed = marker(kdbench_run_finished)
    monkeypatch.setattr(hookspecs, "kdbench_run_finished", changed)


@pytest.mark.usefixtures("deprecated")
def test_what_is_deprecated_is_noted_and_works(tmp_path, recwarn):
    text = (
        GOOD + "\n@hookimpl\ndef kdbench_old(run):\n    pass\n"
        "\n@hookimpl\ndef kdbench_run_finished(record, old):\n    pass\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as Python does by itself
        host = Host(files=[plugin(tmp_path, "mine", text)], found=[])
    [found] = [p for p in host.plugins if p.name == "mine"]
    line = text[: text.index("@hookimpl\ndef kdbench_old")].count("\n") + 1
    assert found.status == "ok"
    assert found.notes == [
        f"kdbench_old goes in 9.0: use kdbench_run_started (mine.py:{line})",
        f"argument old goes in 9.0 (mine.py:{line + 4})",
    ]
    assert host.strategy("mine").name == "mine"
    assert not [w for w in recwarn if w.category is KdbenchDeprecationWarning]
    plain = Host(files=[plugin(tmp_path, "plain", GOOD)], found=[])
    assert not any(p.notes for p in plain.plugins)
