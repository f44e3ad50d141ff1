"""tinybert_attention: each term from the paper's equations; padding never counts."""

import pytest
import torch
from kdbench_text.tinybert_attention import TinyBERTAttention
from torch import nn

from kdbench import Tapped, UserError

LENGTHS = (3, 1, 6, 4)


def shapes(layers, width, heads, length=6):
    return {
        "embeddings": (length, width),
        **{f"stage{n + 1}": (length, width) for n in range(layers)},
        "scores": (layers, heads, length, length),
    }


def tapped(name, shapes):
    return Tapped(name, {**shapes, "logits": (2,)}, nn.Identity())


def prepared(given, student, teacher, items=4, **options):
    torch.manual_seed(0)
    inputs = torch.zeros(items, 8, dtype=torch.int64)
    for row in range(items):
        inputs[row, : LENGTHS[row]] = 7
    adapters = TinyBERTAttention().adapters(
        tapped("student", student), tapped("teacher", teacher)
    )
    return given.batch(
        items=items,
        classes=2,
        inputs=inputs,
        student_shapes=student,
        teacher_shapes=teacher,
        adapters=adapters,
        **options,
    )


def mean_of_states(own, goal):
    parts = [(own[b, :n] - goal[b, :n]).square() for b, n in enumerate(LENGTHS)]
    return torch.cat(parts).mean()


@pytest.mark.parametrize("layers", [(1, 2, [2]), (2, 4, [2, 4]), (2, 3, [2, 3])])
def test_loss_by_hand(given, layers):
    number, of_teacher, chosen = layers
    batch = prepared(given, shapes(number, 4, 2), shapes(of_teacher, 6, 2))
    own, goal, project = batch.student.features, batch.teacher.features, batch.adapters
    hidden, attention = 0.0, 0.0
    for m, g in enumerate(chosen, start=1):
        states = own[f"stage{m}"] @ project.states.weight.T
        hidden = hidden + mean_of_states(states, goal[f"stage{g}"])
        squares = [
            (own["scores"][b, m - 1, :, :n, :n] - goal["scores"][b, g - 1, :, :n, :n])
            .square()
            .flatten()
            for b, n in enumerate(LENGTHS)
        ]
        attention = attention + torch.cat(squares).mean()
    embedded = own["embeddings"] @ project.embeddings.weight.T
    p = batch.teacher.logits.softmax(dim=1)
    wanted = {
        "embedding": mean_of_states(embedded, goal["embeddings"]),
        "hidden": hidden,
        "attention": attention,
        "kd": -(p * batch.student.logits.log_softmax(dim=1)).sum(dim=1).mean(),
        "ce": torch.tensor(0.0),
    }
    terms = TinyBERTAttention().loss(batch)
    assert set(terms) == set(wanted)
    for name in wanted:
        torch.testing.assert_close(terms[name], wanted[name], msg=name)


def test_padding_does_not_count(given):
    batch = prepared(given, shapes(1, 4, 2), shapes(2, 6, 4))
    torch.autograd.backward(list(TinyBERTAttention().loss(batch).values()))
    features = batch.student.features
    for row, n in enumerate(LENGTHS):
        for name in ("embeddings", "stage1"):
            assert features[name].grad[row, :n].count_nonzero() == 4 * n
            assert features[name].grad[row, n:].count_nonzero() == 0
        scores = features["scores"].grad[row, 0]
        assert scores[:, :n, :n].count_nonzero() == 2 * n * n
        assert scores.count_nonzero() == 2 * n * n


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("heads", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_trains_the_student_and_its_projections_only(
    given, assert_trains, items, heads, dtype
):
    batch = prepared(
        given, shapes(1, 4, heads), shapes(2, 6, 2), items=items, dtype=dtype
    )
    assert_trains(TinyBERTAttention(), batch)


def test_finite_at_extreme_values(given, assert_trains):
    batch = prepared(given, shapes(1, 4, 2), shapes(2, 6, 2), scale=1e4)
    assert_trains(TinyBERTAttention(), batch)


def test_weights_scale_their_own_term(given):
    batch = prepared(given, shapes(1, 4, 2), shapes(2, 6, 2))
    names = ("embedding", "hidden", "attention", "kd", "ce")
    one = TinyBERTAttention(ce_weight=1).loss(batch)
    factors = {f"{name}_weight": k for k, name in enumerate(names, start=2)}
    other = TinyBERTAttention(**factors).loss(batch)
    for k, name in enumerate(names, start=2):
        torch.testing.assert_close(other[name], k * one[name])
    softer = TinyBERTAttention(temperature=2).loss(batch)["kd"]
    assert not torch.isclose(softer, one["kd"])


def test_models_that_cut_texts_differently_are_an_error(given):
    batch = prepared(given, shapes(1, 4, 2), shapes(2, 6, 2, length=5))
    with pytest.raises(ValueError, match="cut the texts differently"):
        TinyBERTAttention().loss(batch)


def test_unsupported_pairs_say_why():
    def why(student, teacher):
        return TinyBERTAttention().supports(
            tapped("small", student), teacher and tapped("large", teacher)
        )

    assert why(shapes(1, 4, 2), shapes(2, 6, 4)) is None
    assert why(shapes(1, 4, 2), None) == "there is no teacher"
    assert why(shapes(3, 4, 2), shapes(2, 6, 2)) == (
        "small has 3 layers, more than the 2 of large"
    )
    odd = {**shapes(2, 6, 2), "stage2": (6, 5)}
    assert why(shapes(1, 4, 2), odd) == (
        "the layers of large differ in width; one W_h fits none"
    )
    few = {**shapes(2, 6, 2), "scores": (1, 2, 6, 6)}
    assert why(shapes(1, 4, 2), few) == (
        "large has attention in some of its 2 layers only"
    )


def test_refuses_what_makes_no_sense():
    for values, words in (
        ({"temperature": 0}, "temperature must be > 0"),
        ({"attention_weight": -1}, "attention_weight must be >= 0"),
        ({"atention_weight": 1}, "attention_weight"),
    ):
        with pytest.raises(UserError, match=words):
            TinyBERTAttention.configured(values)
