"""takd: kd's loss in both phases, and who learns from whom in them."""

from dataclasses import replace

import pytest
import torch
from kdbench_mutual_learning import takd
from kdbench_mutual_learning.takd import TeacherAssistant

from kdbench import Outputs, Phase, Task, UserError
from kdbench.testing import mutated


def log_softmax(z):
    top = max(z.tolist())
    total = torch.log(sum(torch.exp(x - top) for x in z)) + top
    return [x - total for x in z]


def reference(student, teacher, targets, temperature=4.0):
    """Mirzadeh et al., equations 1-3, with weights 0.1 and 0.9."""
    total = 0.0
    for s, t, y in zip(student, teacher, targets, strict=True):
        log_p, log_q = log_softmax(t / temperature), log_softmax(s / temperature)
        kl = sum(a.exp() * (a - b) for a, b in zip(log_p, log_q, strict=True))
        total = total + 0.9 * temperature**2 * kl - 0.1 * log_softmax(s)[y]
    return total / len(student)


def compare(given, assert_same, size, scale=3, strategy=TeacherAssistant):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=scale).detach()

    def fast(student):
        teachers = (Outputs(teacher.to(student.dtype)),)
        own = replace(batch, students=(Outputs(student),), teachers=teachers)
        return sum(strategy().loss(own).values())

    assert_same(
        fast,
        lambda s: reference(s, teacher, batch.targets),
        given.normal(*size, scale=scale),
    )


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("scale", [3, 1e3])
def test_matches_the_definition(given, assert_same, size, scale):
    compare(given, assert_same, size, scale)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("soft_kl(student, teacher, ", "soft_kl(teacher, student, "),
        ("teacher, self.temperature)", "teacher, self.temperature) / 16"),
        ("self.ce_weight * label", "self.kd_weight * label"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, old, new):
    wrong = mutated(takd, old, new).TeacherAssistant
    with pytest.raises(AssertionError):
        compare(given, assert_same, (4, 10), strategy=wrong)


def test_the_assistant_comes_first():
    strategy = TeacherAssistant()
    assert (strategy.students, strategy.assistants, strategy.teachers) == (1, 1, 1)
    assert strategy.phases() == (
        Phase(name="assistant", students=(1,), teachers=(0,)),
        Phase(students=(0,), teachers=(), peers=(1,)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("phase", TeacherAssistant().phases(), ids=str)
def test_trains_the_student_of_each_phase(given, assert_trains, phase, dtype):
    assert (len(phase.students), len(phase.teachers + phase.peers)) == (1, 1)
    batch = given.batch(items=1, dtype=dtype, scale=5)
    assert_trains(TeacherAssistant(), replace(batch, phase=phase.name))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = TeacherAssistant(ce_weight=1, kd_weight=1).loss(batch)
    two = TeacherAssistant(ce_weight=2, kd_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["kd"], 5 * one["kd"])


def test_in_a_regression_the_teachers_number_is_the_target(given, assert_trains):
    batch = given.batch(task=Task(kind="regression", outputs=2))
    terms = TeacherAssistant(ce_weight=2, kd_weight=3).loss(batch)
    student = batch.student.logits
    wrong = [
        (student - other).square().sum() / student.numel()
        for other in (batch.targets, batch.teacher.logits)
    ]
    torch.testing.assert_close(terms, {"ce": 2 * wrong[0], "kd": 3 * wrong[1]})
    assert_trains(TeacherAssistant(), batch)


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"kd_weight": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        TeacherAssistant.configured(bad)
