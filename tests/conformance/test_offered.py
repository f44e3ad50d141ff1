"""The checks of what is no strategy: each names its mistake, and passes what is right.

Most mistakes are pieces of the museum, found by all checks of their kind; what is no
file, or would be a large one, is made here.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import sys
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from kdbench.admission import SINGULAR
from kdbench.api import (
    Compression,
    Executor,
    Model,
    Pair,
    Renderer,
    Split,
    SuiteFile,
    UserError,
)
from kdbench.conformance.beside import toy
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.targets import OfferSubject, PluginSubject
from kdbench.conformance.toys import Toys, patterned
from kdbench.conformance.tried import Handed, ours
from kdbench.execute import here
from kdbench.plugins import Host, Offer
from kdbench.tasks import Head, Task

MUSEUM = Path(__file__).parents[1] / "museum"

PIECES = (
    "leaky_split",
    "borrowed_constants",
    "wandering_split",
    "sorted_split",
    "counts_from_one",
    "inplace_relu",
    "swapped_stages",
    "batch_peeker",
    "idle_layer",
    "python_start",
    "forgotten_scale",
    "two_answers",
    "other_classifier",
    "swapped_pair",
    "unknown_student",
    "tensor_measure",
    "wandering_measure",
    "seeding_measure",
    "training_mode",
    "wants_a_teacher",
    "no_direction",
    "stray_renderer",
    "dated_renderer",
)


def findings(subject, kind=None):
    """What all checks of its kind say of it, by name."""
    every = checks_of(kind or subject.kind)
    return {check.name: carried_out(check, subject) for check in every}


def failed(found):
    return {name for name, finding in found.items() if finding.failed}


def said(subject, check, status="failed"):
    """What one check says of it."""
    [asked] = [one for one in checks_of(subject.kind) if one.name == check]
    finding = carried_out(asked, subject)
    assert finding.status == status, finding
    return finding.said


def subject(kind, thing, host=None):
    """Something that no plugin offers, on trial."""
    host = host or ours()
    return OfferSubject(host, kind, Offer(thing, host.plugins[0]))


def bundled(kind, name):
    host = Host()
    plural = {v: k for k, v in SINGULAR.items()}[kind]
    return OfferSubject(host, kind, host.get(plural, name))


# --- the museum, and what is right ----------------------------------------------------


@pytest.mark.parametrize("name", PIECES)
def test_each_piece_of_the_museum_fails_what_it_says(name):
    path = MUSEUM / f"{name}.py"
    names = re.search(r"^checks: (.+)$", path.read_text(), re.M)[1]
    host = Host(files=[path], only=(), modules=[Toys()])
    plugin = next(p for p in host.plugins if p.name == name)
    [(kind, [offered])] = plugin.offers.items()
    assert offered == name
    offer = host.get(kind, name)
    found = findings(OfferSubject(host, SINGULAR[kind], offer))
    assert failed(found) == set(names.split(", ")), "\n".join(
        str(one) for one in found.values() if one.failed
    )


SLOW = [
    ("dataset", "digits_and_ink"),
    ("model", "convnet_32_pruned_75"),
    ("model", "linear_svm"),
    ("pair", "forest-tree"),
    ("measure", "corruption"),
    ("measure", "latency_ms"),
    ("compression", "structured_50"),
    ("compression", "magnitude_80"),
    ("renderer", "markdown"),
]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dataset", "noise"),
        ("dataset", "toy-tokens"),
        ("model", "transformer_1x8"),
        ("measure", "agreement_wrong"),
        ("measure", "calibration"),
        ("suite", "digits"),
        ("renderer", "csv"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW),
    ],
)
def test_what_is_bundled_passes(kind, name):
    if name == "toy-tokens":
        found = findings(subject(kind, toy(name)))
    else:
        found = findings(bundled(kind, name))
    assert failed(found) == set()
    assert any(one.status == "passed" for one in found.values())


# --- plugins --------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts distributions of one module each where Python finds them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(module, text, requires=("kdbench>=0.1",)):
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0"]
        lines += [f"Requires-Dist: {one}" for one in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[kdbench]\n{module} = {module}\n")

    yield install
    for name in set(sys.modules) - before:
        sys.modules.pop(name)


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


# --- datasets -------------------------------------------------------------------------


def changed(dataset, change):
    """The dataset with other data."""
    return dataclasses.replace(
        dataset, load=lambda *_: change(dataset.load(None, False))
    )


def with_test(data, rows):
    split = Split(inputs=data.test.inputs[rows], targets=data.test.targets[rows])
    return dataclasses.replace(data, test=split)


def test_data_that_are_not_at_hand_are_no_failure(monkeypatch):
    def load(data_dir, download):
        raise UserError(f"nothing in {data_dir}: get it with --download")

    dataset = dataclasses.replace(toy("toy-vectors"), embedded=False, load=load)
    monkeypatch.setenv("KDBENCH_DATA", os.fspath(MUSEUM))
    found = findings(subject("dataset", dataset))
    assert found.pop("described").status == "passed"
    assert {one.status for one in found.values()} == {"does not apply"}
    assert found["loads"].said == f"nothing in {MUSEUM}: get it with --download"
    embedded = dataclasses.replace(dataset, embedded=True)
    assert failed(findings(subject("dataset", embedded))) == {"loads"}


def test_what_does_not_load_is_named_once():
    def load(data_dir, download):
        raise KeyError("no such part")

    dataset = dataclasses.replace(toy("toy-vectors"), load=load)
    found = findings(subject("dataset", dataset))
    assert failed(found) == {"loads"}
    assert "KeyError: 'no such part'" in found["loads"].said


def test_a_load_that_gives_something_else_is_told():
    dataset = dataclasses.replace(toy("toy-vectors"), load=lambda *_: ([], []))
    assert "tuple, and not Data" in said(subject("dataset", dataset), "loads")


def test_bytes_normalised_on_the_scale_of_one_are_told():
    def shrunk(data):
        return dataclasses.replace(data, mean=(0.5,), std=(0.2,))

    dataset = changed(toy("toy-images"), shrunk)
    assert "mean (0.5) and std (0.2); those of" in said(
        subject("dataset", dataset), "normalised"
    )


@pytest.mark.parametrize(("shared", "status"), [(1, "passed"), (2, "failed")])
def test_a_hundredth_of_the_test_items_may_be_known(shared, status):
    def mixed(data):
        inputs = data.test.inputs.clone()
        inputs[:shared] = data.train.inputs[-shared:]
        split = Split(inputs=inputs, targets=data.test.targets)
        return dataclasses.replace(data, test=split)

    dataset = changed(toy("toy-vectors"), mixed)
    found = said(subject("dataset", dataset), "no-leakage", status)
    if shared == 2:
        assert "2 of 128 test items (1.6%)" in found
        assert "rows 0, 1" in found


def test_the_head_that_lacks_a_class_is_told():
    which = Head(name="which", task=Task(outputs=3))
    size = Head(name="size", task=Task(kind="regression", outputs=1))

    def load(data_dir, download):
        data = toy("toy-vectors").load(None, False)
        split = {
            part: Split(
                inputs=inputs.inputs,
                targets=torch.stack([inputs.targets % n, inputs.targets], 1).float(),
            )
            for part, inputs, n in (("train", data.train, 3), ("test", data.test, 2))
        }
        return dataclasses.replace(data, **split)

    task = Task.several(which, size)
    dataset = dataclasses.replace(toy("toy-vectors"), task=task, load=load)
    words = said(subject("dataset", dataset), "every-class")
    assert words == "test (head which) has no item of 1 of 3 classes: 2"


def test_a_dataset_that_no_model_can_be_trained_on_is_told():
    def short(data):
        return dataclasses.replace(data, mean=(0.0, 0.0), std=(1.0, 1.0))

    found = findings(subject("dataset", changed(toy("toy-vectors"), short)))
    assert failed(found) == {"normalised", "trains"}
    assert found["normalised"].said == "2 means for 12 channels"
    assert "must match the size" in found["trains"].said


NOTHING = {
    "dataset": dataclasses.replace(toy("toy-vectors"), summary=""),
    "model": dataclasses.replace(ours().model("mlp_5"), summary=""),
    "compression": Compression(name="c", summary="", model=lambda base: base),
    "executor": Executor(name="e", summary="", start=here),
    "renderer": Renderer(name="r", summary="", render=lambda results, folder: []),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_what_says_nothing_of_itself_is_told(kind):
    words = said(subject(kind, NOTHING[kind]), "described")
    assert words == "its summary is ''"


def test_a_dataset_without_a_source_is_told():
    dataset = dataclasses.replace(toy("toy-vectors"), source=" ")
    assert said(subject("dataset", dataset), "described") == "its source is ' '"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unit": None}, "its unit is None"),
        ({"scope": "runs"}, "its scope is 'runs'"),
        ({"tasks": ("classify",)}, "its tasks are ('classify',); there are"),
        ({"tasks": "classification"}, "its tasks are 'classification'"),
        ({"tasks": ()}, "its tasks are ()"),
    ],
)
def test_a_measure_that_is_ill_described_is_told(changes, says):
    thing = dataclasses.replace(ours().get("measures", "ece").thing, **changes)
    assert says in said(subject("measure", thing), "described")


# --- models and pairs -----------------------------------------------------------------


class Net(nn.Module):
    """One hidden layer, and what a test adds to it."""

    def __init__(self, shape, outputs, wrong=""):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], 8), nn.ReLU())
        self.head = nn.Linear(8, outputs)
        self.wrong = wrong
        if wrong == "tied":
            self.again = self.head

    def forward(self, x):
        if self.wrong == "raises" and not x.is_meta:
            raise KeyError("no such layer")
        if self.wrong == "doubles":
            return self.head(self.body(x)).double()
        if self.wrong == "nan" and not x.is_meta:
            return self.head(self.body(x)) * float("nan")
        return self.head(self.body(x))


def net(wrong="", name="net", **changes):
    known = {
        "name": name,
        "summary": "one hidden layer",
        "build": partial(Net, wrong=wrong),
        "taps": {"stage1": "body", "pooled": "head:input"},
        "classifier": "head",
    }
    return Model(**{**known, **changes})


def test_a_model_that_is_right_passes():
    found = findings(subject("model", net()))
    assert {one.status for one in found.values()} == {"passed"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("raises", "KeyError: 'no such layer'"),
        ("doubles", "torch.float64 and not float32"),
        ("nan", "not finite"),
    ],
)
def test_a_model_without_answers_is_named_once(wrong, says):
    found = findings(subject("model", net(wrong)))
    assert failed(found) == {"builds"}
    assert says in found["builds"].said


def test_a_model_that_takes_nothing_is_told_why_by_shape():
    def build(shape, outputs):
        raise ValueError(f"it needs a cube, not {shape}")

    found = findings(subject("model", net(build=build)))
    assert failed(found) == {"builds"}
    assert "inputs 1x8x8: ValueError: it needs a cube, not (1, 8, 8)" in (
        found["builds"].said
    )


def test_a_model_of_its_own_datasets_shape_is_tried_on_that():
    class Cube(Net):
        def __init__(self, shape, outputs):
            if shape != (7,):
                raise ValueError("seven numbers")
            super().__init__(shape, outputs)

    host = ours(Handed(datasets=[patterned("sevens", (7,), 3)]))
    found = findings(subject("model", net(build=Cube), host))
    assert failed(found) == set()
    assert found["trains"].status == "passed"


@pytest.mark.parametrize(
    ("taps", "says"),
    [
        ({"stage1": "boddy"}, "no such module: stage1 = 'boddy'"),
        ({"stage2": "body"}, "stage2 should be stage1"),
        ({"unused": "idle"}, "does not go through unused"),
        ({"pooled": "maps:input"}, r"pooled is (16, 8, 1) and not (B, D)"),
    ],
)
def test_taps_that_are_wrong_are_told(taps, says):
    class More(Net):
        def __init__(self, shape, outputs):
            super().__init__(shape, outputs)
            self.idle, self.maps = nn.Identity(), nn.Flatten()

        def forward(self, x):
            return self.head(self.maps(self.body(x)[:, :, None]))

    model = net(build=More, taps=taps, classifier="")
    assert says in said(subject("model", model), "taps")


def test_a_model_that_seeds_pythons_generator_is_told():
    class Seeding(Net):
        def __init__(self, shape, outputs):
            super().__init__(shape, outputs)
            random.seed(0)

    found = findings(subject("model", net(build=Seeding)))
    assert failed(found) == {"own-randomness"}
    assert "building or training it uses the global generator of random" in (
        found["own-randomness"].said
    )


def test_tied_tensors_cannot_be_kept():
    found = findings(subject("model", net("tied")))
    assert failed(found) == {"round-trip", "trains"}


def test_a_model_that_cannot_be_deployed_does_not_train():
    def deploy(network):
        raise RuntimeError("no such backend")

    found = findings(subject("model", net(deploy=deploy)))
    assert failed(found) == {"trains"}
    assert "no such backend" in found["trains"].said


def test_a_model_made_from_a_teacher_that_nobody_names_is_not_trained():
    model = net(from_teacher=lambda teacher, shape, outputs: teacher)
    assert "no pair says from which" in (
        said(subject("model", model), "trains", "does not apply")
    )


def pair(teacher, student):
    host = ours(Handed(models=[net("", "fine"), net("raises", "raising")]))
    thing = Pair(name="p", teachers=(teacher,), students=(student,))
    return subject("pair", thing, host)


def test_a_string_for_a_tuple_of_names_is_told():
    thing = Pair(name="p", teachers="mlp_32", students=("mlp_5",))
    found = findings(subject("pair", thing))
    assert failed(found) == {"resolves"}
    assert "teachers is 'mlp_32'; write ('mlp_32',)" in found["resolves"].said


def test_a_pair_of_images_and_texts_has_nothing_in_common():
    words = Model(
        name="words",
        summary="words",
        build=lambda shape, outputs, words: nn.EmbeddingBag(words, outputs),
        taps={},
        classifier="",
        tokens=True,
    )
    thing = Pair(name="p", teachers=("convnet_14",), students=("words",))
    found = findings(subject("pair", thing, ours(Handed(models=[words]))))
    assert failed(found) == {"in-common"}
    assert "reads tokens" in found["in-common"].said


def test_a_pair_whose_student_fails_is_told():
    found = findings(pair("fine", "raising"))
    assert failed(found) == {"trains"}
    assert "no such layer" in found["trains"].said


def test_a_student_of_the_teachers_size_is_fine():
    assert said(pair("fine", "fine"), "smaller-student", "passed") == ""


# --- measures -------------------------------------------------------------------------


def test_a_measure_that_seeds_and_draws_nothing_is_told():
    def compute(finished):
        torch.manual_seed(0)
        return 1.0

    thing = dataclasses.replace(ours().get("measures", "top1").thing, compute=compute)
    found = findings(subject("measure", thing))
    assert failed(found) == {"own-randomness"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("inf"), "it is inf, which is not finite"),
        ("much", "it is 'much', a str"),
        ({"first": [1.0, "two"]}, "first is 'two', a str"),
        ({1: 2.0}, "it names a number 1"),
        (None, None),
        ({}, None),
        ({"first": [1.0, None]}, None),
    ],
)
def test_what_a_measure_may_come_to(value, says):
    measure = ours().get("measures", "top1").thing
    thing = dataclasses.replace(measure, compute=lambda finished: value)
    found = findings(subject("measure", thing))
    assert failed(found) == ({"computes"} if says else set())
    assert (says or "") in found["computes"].said


# --- suites ---------------------------------------------------------------------------

SUITE = """
datasets = ["digits"]
pairs = ["digits-mlp"]
strategies = ["kd", "{}"]
"""


@pytest.mark.parametrize(
    ("name", "text", "wrong", "says"),
    [
        ("mine", SUITE.format("dkd"), set(), ""),
        ("mine", SUITE.format("dkdd"), {"resolves-names"}, "did you mean"),
        ("mine", SUITE.format("kd[heat=2]"), {"resolves-names"}, "heat"),
        ("mine", SUITE.replace("pairs", "pears"), {"reads"}, "pears"),
        ("yours", SUITE.format("dkd"), {"reads"}, "offered as 'yours'"),
    ],
)
def test_suites(tmp_path, name, text, wrong, says):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    found = findings(subject("suite", SuiteFile(name=name, path=path)))
    assert failed(found) == wrong
    assert all(says in found[check].said for check in wrong)


def test_a_suite_that_is_not_there_is_told(tmp_path):
    thing = SuiteFile(name="gone", path=tmp_path / "gone.toml")
    assert failed(findings(subject("suite", thing))) == {"reads"}


# --- compressions ---------------------------------------------------------------------


def halved(base, **changes):
    """Every weight halved: smaller numbers, no smaller file."""

    def from_student(student, shape, outputs):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter /= 2
        return student

    known = {"name": f"{base.name}/halved", "from_teacher": from_student}
    return dataclasses.replace(base, **{**known, **changes})


def compression(**changes):
    known = {"name": "halved", "summary": "half of every weight", "model": halved}
    return Compression(**{**known, **changes})


def breaking(base):
    def from_student(student, shape, outputs):
        raise RuntimeError("cannot be halved")

    return halved(base, from_teacher=from_student)


def refusing(base):
    raise UserError(f"{base.name} is too small")


def changing(base):
    object.__setattr__(base, "summary", "halved")
    return halved(base)


@pytest.mark.parametrize(
    ("model", "wrong", "says"),
    [
        (halved, set(), ""),
        (breaking, {"compresses"}, "cannot be halved"),
        (refusing, {"compresses"}, "convnet_14 is too small; mlp_32 is too small"),
        (lambda base: None, {"compresses"}, "gave None, and not a Model"),
        (partial(halved, from_teacher=None), {"compresses"}, "no from_teacher"),
        (changing, {"own-model"}, "changes summary"),
    ],
)
def test_compressions(model, wrong, says):
    found = findings(subject("compression", compression(model=model)))
    assert failed(found) == wrong
    assert all(says in found[check].said for check in wrong)


def test_a_compression_that_renames_nothing_is_told():
    def nameless(base):
        return halved(base, name=base.name)

    thing = compression(model=nameless)
    assert "is called so, too" in said(subject("compression", thing), "own-model")


def test_a_compression_without_its_package_is_not_tried():
    thing = compression(missing=lambda: "install torchao")
    asked = subject("compression", thing)
    assert said(asked, "compresses", "does not apply") == "install torchao"


# --- executors ------------------------------------------------------------------------


def lazy(jobs, workers, host, emit, stop):
    """Leaves out the last job."""
    here(jobs[:-1], workers, host, emit, stop)


def silent(jobs, workers, host, emit, stop):
    here(jobs, workers, host, lambda event: None, stop)


def deaf(jobs, workers, host, emit, stop):
    here(jobs, workers, host, emit, lambda: False)


@pytest.mark.parametrize(
    ("start", "wrong", "says"),
    [
        (here, set(), ""),
        (lazy, {"runs-jobs"}, "no record of scratch"),
        (silent, {"runs-jobs"}, "did not emit the record of"),
        (deaf, {"stops"}, "2 records"),
    ],
)
def test_executors(start, wrong, says):
    thing = Executor(name="mine", summary="elsewhere", start=start)
    found = findings(subject("executor", thing))
    assert failed(found) == wrong
    assert all(says in found[check].said for check in wrong)


# --- renderers ------------------------------------------------------------------------


def in_place(results, folder):
    Path("count.txt").write_text("2")
    return [Path("count.txt")]


def promising(results, folder):
    return [folder / "count.txt"]


def wordless(results, folder):
    (folder / "count.txt").write_text("2")
    return []


@pytest.mark.parametrize(
    ("render", "says"),
    [
        (in_place, "it writes here/count.txt outside its folder"),
        (promising, "it returns count.txt, and there is no such file"),
        (wordless, "it returns no path; it wrote 1 files"),
    ],
)
def test_renderers(render, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    thing = Renderer(name="mine", summary="counts", render=render)
    assert said(subject("renderer", thing), "own-folder") == says
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path


# --- what did not end -----------------------------------------------------------------


def test_what_does_not_end_is_begun_once():
    begun = []

    def load(data_dir, download):
        begun.append(1)
        while True:
            pass

    thing = subject("dataset", dataclasses.replace(toy("toy-vectors"), load=load))
    [loads] = [one for one in checks_of("dataset") if one.name == "loads"]
    assert "did not end" in carried_out(loads, thing, 0.2).said
    assert "did not end" in said(thing, "no-leakage", "does not apply")
    assert begun == [1]
