"""patient_kd: which layers learn, what from, and the weights of its terms."""

import pytest
import torch
from kdbench_text.patient_kd import PatientKD, patient_pairs
from torch import nn

from kdbench import Tapped, UserError

LENGTHS = (3, 1, 6, 4)


def tapped(name="net", **shapes):
    return Tapped(name, {**shapes, "logits": (2,)}, nn.Identity())


def stages(number, length, width):
    return {f"stage{n + 1}": (length, width) for n in range(number)}


def prepared(given, student, teacher, strategy, items=4, **options):
    """A batch whose inputs are longer (8) than the features (6), as after a cut."""
    torch.manual_seed(0)
    inputs = torch.zeros(items, 8, dtype=torch.int64)
    for row in range(items):
        inputs[row, : LENGTHS[row]] = 7
    return given.batch(
        items=items,
        classes=2,
        inputs=inputs,
        student_shapes=student,
        teacher_shapes=teacher,
        adapters=strategy.adapters(tapped(**student), tapped(**teacher)),
        **options,
    )


@pytest.mark.parametrize(
    ("sizes", "layers", "pairs"),
    [
        ((6, 12), "skip", [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
        ((6, 12), "last", [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),
        ((3, 12), "skip", [(1, 4), (2, 8)]),
        ((2, 3), "skip", [(1, 2)]),
        ((2, 2), "last", [(1, 1)]),
        ((1, 2), "skip", [(1, 2)]),
        ((1, 4), "last", [(1, 4)]),
    ],
    ids=str,
)
def test_layers_are_the_papers(sizes, layers, pairs):
    assert patient_pairs(*sizes, layers) == pairs


@pytest.mark.parametrize("layers", ["skip", "last"])
def test_hidden_by_hand(given, layers):
    strategy = PatientKD(layers=layers, hidden_weight=7)
    student, teacher = stages(3, 6, 4), stages(6, 6, 5)
    batch = prepared(given, student, teacher, strategy)
    total = 0.0
    which = {"skip": [2, 4], "last": [4, 5]}[layers]
    for project, m, g in zip(batch.adapters, (1, 2), which, strict=True):
        for row, length in enumerate(LENGTHS):
            own = batch.student.features[f"stage{m}"][row, :length].mean(dim=0)
            goal = batch.teacher.features[f"stage{g}"][row, :length].mean(dim=0)
            own = project.weight @ own
            difference = own / own.norm() - goal / goal.norm()
            total = total + difference.square().sum()
    wanted = 7 * total / (2 * 4 * 5)  # layers, texts, width
    torch.testing.assert_close(strategy.loss(batch)["hidden"], wanted)


def test_padding_does_not_count(given):
    strategy = PatientKD()
    batch = prepared(given, stages(2, 6, 4), stages(2, 6, 5), strategy)
    strategy.loss(batch)["hidden"].backward()
    gradient = batch.student.features["stage1"].grad
    for row, length in enumerate(LENGTHS):
        assert gradient[row, :length].count_nonzero() == 4 * length
        assert gradient[row, length:].count_nonzero() == 0


def learning(given):
    """The student's tensors that a student of two layers learns by."""
    return given.students[:-1]


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_trains_the_student_and_its_projections_only(
    given, assert_trains, items, dtype
):
    strategy = PatientKD()
    batch = prepared(
        given, stages(2, 6, 4), stages(2, 6, 5), strategy, items, dtype=dtype
    )
    assert_trains(strategy, batch, learning(given))
    assert batch.student.features["stage2"].grad is None  # the logits teach the last


def test_finite_at_extreme_values(given, assert_trains):
    strategy = PatientKD()
    batch = prepared(given, stages(1, 6, 4), stages(2, 6, 4), strategy, scale=1e4)
    assert_trains(strategy, batch)


def test_projections_only_where_widths_differ():
    for wide, parts in ((4, 0), (5, 2)):
        adapters = PatientKD().adapters(
            tapped(**stages(3, 6, 4)), tapped(**stages(3, 6, wide))
        )
        assert len(list(adapters.parameters())) == parts
        assert len(adapters) == 2


def test_weights_scale_their_own_term(given):
    one = PatientKD(ce_weight=1, kd_weight=1, hidden_weight=1)
    batch = prepared(given, stages(2, 6, 4), stages(2, 6, 5), one)
    terms = one.loss(batch)
    other = PatientKD(ce_weight=2, kd_weight=3, hidden_weight=5).loss(batch)
    for name, factor in (("ce", 2), ("kd", 3), ("hidden", 5)):
        torch.testing.assert_close(other[name], factor * terms[name])
    default = PatientKD().loss(batch)
    for name, factor in (("ce", 0.5), ("kd", 0.5), ("hidden", 100)):
        torch.testing.assert_close(default[name], factor * terms[name])


def test_unsupported_pairs_say_why():
    supports = PatientKD().supports
    assert supports(tapped(**stages(1, 6, 4)), tapped(**stages(2, 9, 8))) is None
    two, one = tapped("two", **stages(2, 6, 4)), tapped("one", **stages(1, 6, 4))
    assert supports(two, one) == "two has 2 layers, more than the 1 of one"
    assert supports(tapped("bag"), one) == "bag has no layers (stages)"
    maps = tapped("cnn", stage1=(8, 4, 4))
    assert supports(maps, one) == (
        "stage1 of cnn is no (L, D) layer of a text: (8, 4, 4)"
    )
    assert supports(one, None) == "there is no teacher"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"layers": "first"}, "layers=first"),
        ({"temperature": 0}, "temperature must be > 0"),
        ({"hidden_weight": -1}, "hidden_weight must be >= 0"),
    ],
    ids=str,
)
def test_refuses_what_makes_no_sense(values, words):
    with pytest.raises(UserError, match=words):
        PatientKD.configured(values)
