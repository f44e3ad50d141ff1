"""What `kdbench check` understands, and in which company it looks at it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import kdbench_audio
import kdbench_soft_targets
import kdbench_text
import pytest
from kdbench_soft_targets.kd import SoftTargets

from kdbench.api import Measure, UserError
from kdbench.conformance import targets
from kdbench.conformance.checks import DoesNotApply
from kdbench.conformance.targets import (
    OfferSubject,
    PluginSubject,
    find,
    of_class,
    of_module,
)
from kdbench.conformance.toys import HOMES, Toy
from kdbench.conformance.trainings import Subject

MUSEUM = Path(__file__).parents[1] / "museum"

PLUGIN = """
from kdbench import Measure, Pair, hookimpl

def count(finished):
    return 1.0

@hookimpl
def kdbench_measures():
    return [Measure(name="{name}", summary="one", unit="", better=None, compute=count)]

@hookimpl
def kdbench_pairs():
    return [Pair(name="{name}", teachers=("mlp_32",), students=("mlp_5",))]
"""


def things(target):
    return [(thing.kind, thing.name) for thing in target.things]


def refused(text, toy=None):
    with pytest.raises(UserError) as caught:
        find(text, toy)
    return str(caught.value)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of one's own to work in; what is put on the path is taken off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def install(here):
    """Have a distribution installed: what its metadata says, and its entry points."""

    def install(name, requires=(), **points):
        folder = here / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        entries = [f"{point} = {value}" for point, value in points.items()]
        entries = ["[kdbench]", *entries]
        (folder / "entry_points.txt").write_text("\n".join(entries) + "\n")
        sys.path.insert(0, str(here))

    return install


# --- what is meant ---


def test_a_file(here):
    (here / "mine.py").write_text(PLUGIN.format(name="mine_one"))
    target = find("mine.py")
    assert things(target) == [
        ("plugin", "mine"),
        ("pair", "mine_one"),
        ("measure", "mine_one"),
    ]
    plugin, pair, measure = (thing.subject for thing in target.things)
    assert isinstance(plugin, PluginSubject)
    assert plugin.plugin.status == "ok"
    assert isinstance(measure, OfferSubject)
    assert measure.kind == "measure"
    assert isinstance(measure.offer.thing, Measure)
    assert pair.offer.plugin is plugin.plugin


@pytest.mark.parametrize("piece", ["import_error", "exits_at_import", "syntax_error"])
def test_a_broken_file_is_looked_at_nevertheless(piece):
    target = find(str(MUSEUM / f"{piece}.py"))
    assert things(target) == [("plugin", piece)]
    assert target.things[0].subject.plugin.status == "broken"


@pytest.mark.parametrize("text", ["kdbench-soft-targets", "KDBench_Soft.Targets"])
def test_a_distribution(text):
    target = find(text)
    assert target.title.startswith("kdbench-soft-targets ")
    assert things(target)[0] == ("plugin", "soft_targets")
    assert ("strategy", "kd") in things(target)
    assert ("strategy", "dkd") in things(target)
    assert {kind for kind, _ in things(target)} == {"plugin", "strategy"}


@pytest.mark.parametrize("text", ["soft_targets", "kdbench_soft_targets.kd"])
def test_a_plugin_or_a_module_in_it(text):
    assert things(find(text)) == things(find("kdbench-soft-targets"))


def test_one_name():
    target = find("kd")
    assert target.title == "strategy kd (kdbench-soft-targets)"
    [thing] = target.things
    assert (thing.kind, thing.name) == ("strategy", "kd")
    assert isinstance(thing.subject, Subject)
    assert thing.subject.kind is SoftTargets


def test_a_name_of_two_kinds():
    assert things(find("digits")) == [("dataset", "digits"), ("suite", "digits")]


def test_what_a_source_finds():
    assert things(find("torchvision:resnet18")) == [("model", "torchvision:resnet18")]
    assert "resnet1x" in refused("torchvision:resnet1x")


def test_our_own_parts():
    everything = things(find("kdbench"))
    assert ("plugin", "kdbench.controls") in everything
    assert ("dataset", "digits") in everything
    controls = things(find("kdbench.controls"))
    assert controls[0] == ("plugin", "kdbench.controls")
    assert {kind for kind, _ in controls[1:]} == {"strategy"}


def test_a_module_that_is_no_plugin_of_a_distribution(here):
    (here / "loose_module_of_mine.py").write_text(PLUGIN.format(name="loose"))
    sys.path.insert(0, str(here))
    assert things(find("loose_module_of_mine"))[1:] == [
        ("pair", "loose"),
        ("measure", "loose"),
    ]
    missing = find("loose_module_of_mine.inner").things[0].subject.plugin
    assert missing.status == "broken"


def test_a_projects_folder(here):
    package = here / "project" / "src" / "my_package_in_a_folder"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PLUGIN.format(name="packed"))
    (here / "project" / "pyproject.toml").write_text(
        '[project]\nname = "my-package"\n'
        '[project.entry-points.kdbench]\nmy_own = "my_package_in_a_folder"\n'
    )
    target = find("./project")
    assert things(target) == [
        ("plugin", "my_own"),
        ("pair", "packed"),
        ("measure", "packed"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "pyproject.toml: no such file"),
        ("[project]\nname = 'x'\n", "declares no plugin"),
        ("[project\n", "cannot be read"),
    ],
)
def test_a_folder_without_a_plugin(here, text, said):
    (here / "project").mkdir()
    if text is not None:
        (here / "project" / "pyproject.toml").write_text(text)
    assert said in refused("./project")


def test_what_there_is_not(here):
    assert refused("nowhere.py") == "nowhere.py: no such file"
    assert "did you mean 'kd'" in refused("kdx")
    assert "'kdbench-soft-targets'" in refused("kdbench-soft-target")
    assert "'soft_targets'" in refused("softtargets")
    assert "'digits'" in refused("digitz")
    assert "unknown target 'folder'" in refused("folder")  # a prefix is no name
    (here / "my_strategy.py").touch()
    assert "'my_strategy.py'" in refused("my_strategy")


def test_a_broken_plugin_by_name_and_where_a_name_is_missed(install):
    install("museum-ruined", ruined="a_module_that_is_nowhere")
    [thing] = find("ruined").things
    assert thing.subject.plugin.status == "broken"
    assert "broken plugins: ruined (" in refused("ruined_strategy")


# --- in which company ---


def test_only_what_the_target_needs_is_there():
    host = find("kd").things[0].subject.host
    assert "dkd" in host.names("strategies")
    assert "toy-convnets" in host.names("pairs")
    assert "scratch" in host.names("strategies")
    assert "patient_kd" not in host.names("strategies")
    assert {p.distribution for p in host.plugins} == {
        "kdbench",
        "(module)",
        "kdbench-soft-targets",
    }


def test_a_choice_of_plugins_has_no_say(monkeypatch):
    monkeypatch.setenv("KDBENCH_PLUGINS", "audio")
    assert things(find("kd")) == [("strategy", "kd")]
    assert find("text").things[0].subject.plugin.status == "ok"


def test_what_the_distribution_requires_is_there(install, here):
    (here / "leaning_on_text.py").write_text(PLUGIN.format(name="leaning"))
    requires = ["kdbench>=0.1", 'kdbench_text>=0; python_version > "3"', "torch"]
    requires += ['kdbench-audio; extra == "audio"']
    install("leans-on-text", requires, leaning="leaning_on_text")
    target = find("leans-on-text")
    assert things(target)[0] == ("plugin", "leaning")
    host = target.things[0].subject.host
    assert {p.name for p in host.plugins if p.distribution != "kdbench"} == {
        "kdbench.toys",
        "leaning",
        "text",
    }


def test_requirements_that_cannot_be_read_cost_nothing_else(install, here):
    (here / "oddly_packed.py").write_text(PLUGIN.format(name="odd"))
    install("packed-oddly", ["kdbench (as new as it gets"], odd="oddly_packed")
    assert find("packed-oddly").things[0].subject.plugin.name == "odd"


def test_a_plugin_called_as_the_toys(here):
    (here / "toys.py").write_text(PLUGIN.format(name="a_toy"))
    assert find("toys.py").things[0].subject.plugin.status == "ok"


# --- where strategies are trained ---


def test_most_are_at_home_on_the_first_toy():
    [thing] = find("kd").things
    assert thing.subject.home == HOMES[0]


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("patient_kd", Toy("toy-tokens", "sst2-bilstm", "the plugin's own")),
        ("teacher_features", Toy("toy-images", "conv-boosting", "the plugin's own")),
    ],
)
def test_some_are_only_on_pairs_of_their_plugin(name, home):
    [thing] = find(name).things
    assert thing.subject.home == home


def test_the_own_pairs_are_small_and_fit():
    host = find("audio").things[0].subject.host
    found = targets._own_toys(host)
    pairs = {offer.thing.name for offer in host.all("pairs")}
    assert {toy.pair for toy in found} < pairs
    text = find("text").things[0].subject.host
    assert {toy.dataset for toy in targets._own_toys(text)} == {"toy-tokens"}


def test_large_ones_are_left_alone(monkeypatch):
    host = find("text").things[0].subject.host
    monkeypatch.setattr(targets, "SMALL", 20_000)
    assert [toy.pair for toy in targets._own_toys(host)] == ["sst2-cnn"]


def test_elsewhere_by_hand():
    toy = Toy("digits", "digits-mlp")
    [thing] = find("kd", toy).things
    assert thing.subject.home == toy
    [thing] = find("kd", Toy("toy-tokens", "sst2-cnn")).things  # another plugin's pair
    assert thing.subject.home.pair == "sst2-cnn"
    [thing] = find("patient_kd", toy).things
    with pytest.raises(DoesNotApply, match="digits-mlp"):
        thing.subject.train()


def test_elsewhere_has_to_be_there_without_files():
    assert "needs files" in refused("kd", Toy("cifar100", "digits-mlp"))
    assert "unknown pair" in refused("kd", Toy("digits", "digits-mpl"))
    assert "unknown dataset" in refused("kd", Toy("digit", "digits-mlp"))


# --- from a test ---


def test_a_class_with_its_plugin():
    thing = of_class(SoftTargets)
    assert (thing.kind, thing.name) == ("strategy", "kd")
    assert "dkd" in thing.subject.host.names("strategies")


def test_a_class_alone():
    modules = {"other": __name__, "kd": SoftTargets.__module__}
    for name, module in modules.items():  # offered by nobody, or another of that name
        space = {"name": name, "__module__": module}
        mine = type("Mine", (SoftTargets,), space)
        kind = dataclass(frozen=True, kw_only=True)(mine)
        thing = of_class(kind)
        assert thing.subject.kind is kind
        assert "dkd" not in thing.subject.host.names("strategies")


def test_a_class_that_no_host_takes():
    with pytest.raises(UserError, match=r"Unfinished cannot be used: .*dataclass"):
        of_class(type("Unfinished", (SoftTargets,), {"name": "unfinished"}))


def test_a_module_at_hand():
    assert things(of_module(kdbench_text)) == things(find("kdbench-text"))
    assert things(of_module(kdbench_audio))[0] == ("plugin", "audio")
    assert things(of_module(kdbench_soft_targets)) == things(find("soft_targets"))


def test_a_module_that_is_not_installed(here):
    (here / "mine_at_hand.py").write_text(PLUGIN.format(name="at_hand"))
    sys.path.insert(0, str(here))
    assert things(of_module(import_module("mine_at_hand"))) == [
        ("plugin", "mine_at_hand"),
        ("pair", "at_hand"),
        ("measure", "at_hand"),
    ]
