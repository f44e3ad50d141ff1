"""The plugin host: status, isolation, clashes, files."""

from __future__ import annotations

import sys
import warnings
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench import __version__, hookspecs
from kdbench.api import KdbenchDeprecationWarning, UserError, hookimpl
from kdbench.config import Suite
from kdbench.loading import Plugin
from kdbench.plan import make_plan
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


# --- distributions, versions, deprecation ---------------------------------------------


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


# --- misbehaviour ---------------------------------------------------------------------


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
