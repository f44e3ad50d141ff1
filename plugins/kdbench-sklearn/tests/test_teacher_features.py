"""The trunk is the teacher's own, the classifier is gone, and all of it is counted."""

import copy
from dataclasses import replace

import pytest
import torch
from kdbench_sklearn.teacher_features import OnFeatures, TeacherFeatures, trunk_of
from kdbench_sklearn.zoo import models
from torch import nn

from kdbench import Batch, Context, Outputs, Recipe, Tapped, Task, UserError
from kdbench.measure.size import macs, parameters, serialised
from kdbench.models.convnet import convnet

MODELS = {model.name: model for model in models()}


class Once(Context):
    """One epoch over the digits, in two batches of shuffled items."""

    def __init__(self, digits, teacher, student, order):
        self.task, self.recipe = Task(outputs=10), Recipe()
        self.teachers, self.students = [teacher.eval()], [student]
        self.digits, self.order = digits, order
        self.passes = 0

    def batches(self):
        self.passes += 1
        for index in self.order.chunk(2):
            yield Batch(
                task=self.task,
                inputs=self.digits.inputs[index],
                targets=self.digits.labels[index],
                index=index,
                labelled=torch.ones_like(index, dtype=torch.bool),
                students=(),
                teachers=(),
                adapters=None,
                progress=0.0,
                epoch=0.0,
                generator=torch.Generator(),
            )

    def epochs(self):
        raise NotImplementedError

    optimiser = log = epochs


@pytest.fixture
def teacher(digits):
    torch.manual_seed(0)
    net = convnet(8).build((1, 8, 8), 10)
    net(digits.inputs)  # running statistics that are not the initial ones
    return net


@pytest.fixture
def context(digits, teacher, build):
    stream = torch.Generator().manual_seed(1)
    order = torch.randperm(len(digits.labels), generator=stream)
    return Once(digits, teacher, build(MODELS["linear_svm"]), order)


def test_fits_the_student_on_what_enters_the_classifier(digits, context, build):
    teacher = context.teachers[0]
    before = copy.deepcopy(teacher.state_dict())
    student = TeacherFeatures().train(context)
    with torch.no_grad():
        maps = teacher.stage2(teacher.stage1(teacher.stem(digits.inputs)))
        features = teacher.pool(maps).flatten(1)
    plain = build(MODELS["linear_svm"])
    plain.fit(features, digits.hard)
    assert torch.equal(student(digits.inputs), plain(features))
    assert student(digits.others).shape == (100, 10)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert context.passes == 1


def test_order_of_the_batches_does_not_matter(digits, context, build):
    first = TeacherFeatures().train(context)
    context.order = context.order.flip(0)
    context.students = [build(MODELS["linear_svm"])]
    second = TeacherFeatures().train(context)
    assert torch.equal(first(digits.others), second(digits.others))


def test_a_student_that_is_fitted_already_is_kept(context):
    first = TeacherFeatures().train(context)
    again = TeacherFeatures().train(context)
    assert context.passes == 1
    assert again.head is first.head


def test_soft_targets_of_the_teacher(digits, context, build):
    hard = TeacherFeatures().train(context)
    context.students = [build(MODELS["linear_svm"])]
    soft = TeacherFeatures(label_weight=0.1, kd_weight=0.9, temperature=2)
    assert not torch.equal(soft.train(context)(digits.others), hard(digits.others))
    batch = next(context.batches())
    logits = 3 * torch.randn(len(batch.index), 10, generator=batch.generator)
    target = soft.target(replace(batch, teachers=(Outputs(logits=logits),)))
    wanted = 0.9 * (logits / 2).softmax(1)
    wanted[torch.arange(len(logits)), batch.targets] += 0.1
    torch.testing.assert_close(target.float(), wanted)


def test_trunk_and_estimator_are_both_counted(digits, context):
    student = TeacherFeatures().train(context).eval()
    trunk = sum(
        p.numel()
        for name, p in context.teachers[0].named_parameters()
        if not name.startswith("classifier")
    )
    assert parameters(student) == trunk + 16 * 10 + 10
    assert macs(student, digits.inputs[:1]) is None
    assert len(serialised(student)) > 4 * trunk
    twin = copy.deepcopy(student)
    for p in twin.trunk.parameters():
        p.zero_()
    twin.load_state_dict(student.state_dict())
    assert torch.equal(twin(digits.others), student(digits.others))
    assert not any(p.requires_grad for p in student.parameters())


def test_no_count_where_the_estimator_has_none(context, build):
    context.students = [build(MODELS["decision_tree"])]
    assert parameters(TeacherFeatures().train(context)) is None


def test_hooks_of_the_teacher_do_not_come_along(digits, teacher):
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    trunk_of(teacher, "classifier")(digits.inputs)
    assert not calls


def test_a_teacher_that_goes_on_after_its_last_layer_is_refused(context):
    class Scaled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, inputs):
            return 2 * self.inner(inputs)

    context.teachers = [Scaled(context.teachers[0])]
    with pytest.raises(TypeError, match="does not end in its classifier"):
        TeacherFeatures().train(context)


def tapped(name, model):
    return Tapped(name=name, shapes={"logits": (10,)}, model=model)


def test_which_pairs_are_supported(teacher, build):
    supports = TeacherFeatures().supports
    svm = tapped("linear_svm", build(MODELS["linear_svm"]))
    net = tapped("net", teacher)
    assert supports(svm, net) is None
    assert "net is no estimator" in supports(net, net)
    forest = tapped("random_forest", build(MODELS["random_forest"]))
    assert "random_forest does not end in a dense layer" in supports(svm, forest)
    hidden = tapped("other", nn.Sequential(nn.Linear(4, 7), nn.Conv2d(1, 10, 1)))
    assert "other does not end in a dense layer" in supports(svm, hidden)
    # nothing would be left of a teacher that is a dense layer alone
    alone = tapped("alone", nn.Linear(64, 10))
    assert "alone does not end" in supports(svm, alone)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"kd_weight": -1},
        {"label_weight": -0.1},
        {"label_weight": 0, "kd_weight": 0},
    ],
)
def test_hyper_parameters_out_of_range(values):
    with pytest.raises(UserError, match="teacher_features"):
        TeacherFeatures.configured(values)


def test_composite_of_an_unfitted_head_says_so(teacher, build, digits):
    student = OnFeatures(trunk_of(teacher, "classifier"), build(MODELS["knn"]))
    with pytest.raises(UserError, match="learned nothing"):
        student(digits.inputs)
