"""What holds for all kinds of things: each mistake is found, what is right passes.

Most mistakes are pieces of the museum, found by all checks of their kind; what is no
file, or would be a large one, is made beside this.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from kdbench.admission import SINGULAR
from kdbench.api import Compression, Executor, Renderer
from kdbench.conformance.beside import toy
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.toys import Toys
from kdbench.conformance.tried import ours
from kdbench.execute import here
from kdbench.plugins import Host

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings, said, subject

MUSEUM = Path(__file__).parents[2] / "museum"

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


def bundled(kind, name):
    host = Host()
    plural = {v: k for k, v in SINGULAR.items()}[kind]
    return OfferSubject(host, kind, host.get(plural, name))


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
