"""Checks of models, and of pairs of them: each names its mistake."""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from kdbench.api import Model, Pair
from kdbench.conformance.toys import patterned
from kdbench.conformance.tried import Handed, ours

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from offering import failed, findings, said, subject


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
