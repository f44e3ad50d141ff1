"""irg: vertices, edges and transformations from the paper, item by item."""

import dataclasses

import pytest
import torch
from kdbench_feature_matching import irg
from kdbench_feature_matching.irg import InstanceRelationshipGraph
from torch import nn

from kdbench import Tapped
from kdbench.testing import mutated

MAPS = (
    {"stage1": (2, 4, 4), "stage2": (4, 2, 2), "stage3": (5, 2, 2), "pooled": (5,)},
    {"stage1": (3, 2, 2), "stage2": (3, 2, 2), "stage3": (7, 1, 1), "pooled": (7,)},
)
VECTORS = (
    {"stage1": (6,), "stage2": (3,), "pooled": (3,)},
    {"stage1": (8,), "stage2": (5,), "pooled": (5,)},
)


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True))


def over_max(distances):
    largest = max(distances, key=lambda x: x.item())
    return [x / largest if largest > 0 else x for x in distances]


def mean_square(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def narrowed(vector, width):
    """Means of `width` runs, from floor(i n / width) up to ceil((i + 1) n / width)."""
    n = len(vector)
    runs = [(i * n // width, -(-(i + 1) * n // width)) for i in range(width)]
    return torch.stack([vector[a:b].sum() / (b - a) for a, b in runs])


def edges(layer):
    return over_max([squared(a, b) for a in layer for b in layer])


def changes(earlier, later):
    found = []
    for a, b in zip(earlier, later, strict=True):
        a, b = (x.reshape(len(x), -1).mean(dim=1) for x in (a, b))
        width = min(len(a), len(b))
        found.append(squared(narrowed(a, width), narrowed(b, width)))
    return over_max(found)


def reference(student, teacher):
    """(vertex, edge, transformation) of lists: logits, stages, pooled."""
    z, *stages, _ = student
    z_t, *stages_t, pooled_t = teacher
    edge = [mean_square(edges(x), edges(pooled_t)) for x in student[1:][-3:]]
    change = [
        mean_square(changes(*stages[k : k + 2]), changes(*stages_t[k : k + 2]))
        for k in range(len(stages) - 1)
    ]
    vertex = mean_square(z.flatten(), z_t.flatten())
    return vertex, sum(edge) / len(edge), sum(change) / len(change)


@pytest.fixture
def compare(given, assert_same):
    """Compares the three terms of a module with the reference."""

    def check(module, shapes=MAPS, items=3, scale=1.0):
        batch = given.batch(
            items=items,
            student_shapes=shapes[0],
            teacher_shapes=shapes[1],
            dtype=torch.float64,
            scale=scale,
        )
        teachers = [x.detach() for x in given.teachers]

        def fast(*tensors):
            def side(outputs, logits, *features):
                named = dict(zip(outputs.features, features, strict=True))
                return (dataclasses.replace(outputs, logits=logits, features=named),)

            constants = (x.to(tensors[0].dtype) for x in teachers)
            sides = dataclasses.replace(
                batch,
                students=side(batch.student, *tensors),
                teachers=side(batch.teacher, *constants),
            )
            terms = module.InstanceRelationshipGraph(ce_weight=0).loss(sides)
            assert terms.pop("ce") == 0
            return sum(terms.values())

        def slow(*tensors):
            vertex, edge, change = reference(tensors, teachers)
            return 0.1 * vertex + 5 * edge + 5 * change

        assert_same(fast, slow, *given.students)

    return check


@pytest.mark.parametrize("shapes", [MAPS, VECTORS], ids=["maps", "vectors"])
@pytest.mark.parametrize("items", [1, 2, 4])
def test_matches_the_definition(compare, shapes, items):
    compare(irg, shapes, items)


@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_matches_the_definition_at_any_scale(compare, scale):
    compare(irg, scale=scale)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- 2 * products", "+ 2 * products"),
        ("return over_largest(distance.clamp(min=0))", "return distance.clamp(min=0)"),
        ("squares[:, None] -", "squares -"),
        ("[-3:]", "[-1:]"),
        ("(a - b).square()", "(a + b).square()"),
        ("changes(s, next_s)", "changes(s, s)"),
        ("changes_of, t.tap, next_t.tap", "changes_of, t.tap, t.tap"),
        ("self.vertex_weight * vertex", "-self.vertex_weight * vertex"),
    ],
)
def test_wrong_formulas_are_noticed(compare, old, new):
    wrong = mutated(irg, old, new)
    with pytest.raises(AssertionError):
        compare(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", [MAPS, VECTORS], ids=["maps", "vectors"])
def test_trains_all_layers(given, assert_trains, shapes, dtype):
    batch = given.batch(student_shapes=shapes[0], teacher_shapes=shapes[1], dtype=dtype)
    assert_trains(InstanceRelationshipGraph(), batch)


def test_coinciding_items_stay_finite(given):
    batch = given.batch(student_shapes=MAPS[0], teacher_shapes=MAPS[1])
    same = {k: torch.ones_like(v) for k, v in batch.student.features.items()}
    leaves = {k: v.requires_grad_() for k, v in same.items()}
    student = dataclasses.replace(batch.student, features=leaves)
    terms = InstanceRelationshipGraph().loss(
        dataclasses.replace(batch, students=(student,))
    )
    gradients = torch.autograd.grad(sum(terms.values()), list(leaves.values()))
    assert all(x.isfinite().all() for x in (*terms.values(), *gradients))


def test_weights_scale_their_own_term(given):
    batch = given.batch(student_shapes=MAPS[0], teacher_shapes=MAPS[1])
    once = InstanceRelationshipGraph().loss(batch)
    names = {"ce": 1.0, "vertex": 0.1, "edge": 5.0, "transformation": 5.0}
    for name, default in names.items():
        other = InstanceRelationshipGraph(**{f"{name}_weight": 2 * default}).loss(batch)
        wanted = {k: v * 2 if k == name else v for k, v in once.items()}
        torch.testing.assert_close(other, wanted)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(once["ce"], ce)


def test_refusals():
    supports = InstanceRelationshipGraph().supports
    sides = [Tapped("model", shapes, nn.Identity()) for shapes in (*MAPS, VECTORS[0])]
    one = Tapped("one", {"stage1": (4,), "pooled": (4,)}, nn.Identity())
    assert supports(*sides[:2]) is None
    assert "no rule matches" in supports(sides[0], sides[2])
    assert supports(one, one) == "one has one stage only: nothing is transformed"
    assert supports(sides[0], None) == "there is no teacher"


def test_refuses_stages_whose_positions_are_unknown():
    tokens = {"stage1": (7, 4), "stage2": (7, 4), "pooled": (4,)}
    vectors, tokens = (Tapped("net", s, nn.Identity()) for s in (VECTORS[0], tokens))
    sentence = "stage1 of net is neither a vector (D,) nor a map (C, H, W): (7, 4)"
    for pair in ((vectors, tokens), (tokens, vectors), (tokens, tokens)):
        assert InstanceRelationshipGraph().supports(*pair) == sentence
