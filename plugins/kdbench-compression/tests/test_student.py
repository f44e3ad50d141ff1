"""The int8 student in training: what is quantised, its paths, resume to the bit."""

import copy

import pytest
import torch
import torch.nn.functional as F
from kdbench_compression import int8, pruned
from kdbench_compression.ranges import MovingRange, fake_quantised_weight
from kdbench_compression.student import between, fake_quantised, units
from torch import nn

from kdbench import UserError
from kdbench.models import kdbench_models
from kdbench.models.taps import TappedModel

HOST = {model.name: model for model in kdbench_models()}
SIZE = ((1, 8, 8), 10)
"""Of digits: shape of the inputs, number of classes."""
CASES = [
    ("convnet_32", (1, 8, 8)),
    ("mlp_bn_256_128", (1, 8, 8)),
    ("mlp_256_128", (1, 28, 28)),
    ("lenet", (1, 28, 28)),
]


def steps(network, shape, count, seed):
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    network.train()
    for _ in range(count):
        logits = network(torch.randn(16, *shape, generator=generator))
        optimiser.zero_grad()
        logits.square().mean().backward()
        optimiser.step()


def test_units_are_what_folds_together():
    found = [
        (u.layer, u.norm, u.relu) for u in units(HOST["convnet_6"].build((1, 8, 8), 10))
    ]
    assert found[0] == ("classifier", None, None)
    assert found[1] == ("stem.0", "stem.1", "stem.2")
    network = nn.Module()
    network.first, network.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
    network.rest = nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm2d(4))
    found = [(u.layer, u.norm, u.relu) for u in units(network)]
    assert found == [("first", None, None), ("rest.1", None, None)]
    assert list(between(network)) == ["norm", "rest.2"]


def test_a_convnet_is_quantised_where_it_says(trained):
    """The forward pass written out, with the student's own parts."""
    student = trained(int8(HOST["convnet_6"]), (1, 8, 8))
    x = torch.randn(8, 1, 8, 8)
    got = student(x)
    x = student.input_range(x)
    for block, stride in ((student.stem, 1), (student.stage1, 1), (student.stage2, 2)):
        x = F.conv2d(x, fake_quantised_weight(block[0].weight), None, stride, 1)
        x = block[2].output_range(F.relu(block[1](x)))
    x = student.pool.output_range(x.mean((2, 3)))
    head = student.classifier
    expected = F.linear(x, fake_quantised_weight(head.weight), head.bias)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_names_of_parameters_stay_and_all_learn(name, shape):
    base, student = HOST[name].build(shape, 10), int8(HOST[name]).build(shape, 10)
    plain = {k: v.shape for k, v in base.named_parameters()}
    assert {k: v.shape for k, v in student.named_parameters()} == plain
    student(torch.randn(16, *shape)).square().mean().backward()
    for parameter in student.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.count_nonzero() > 0


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_taps_give_quantised_features(name, shape):
    model = int8(HOST[name])
    student = model.build(shape, 10)
    outputs = TappedModel(model, student, tuple(model.taps))(torch.randn(64, *shape))
    assert list(outputs.features) == list(model.taps)
    for tap, value in outputs.features.items():
        if not tap.startswith("preact"):  # quantised behind the ReLU
            assert len(value.unique()) <= 256


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_start_is_that_of_the_base(name, shape):
    torch.manual_seed(5)
    base = HOST[name].build(shape, 10).state_dict()
    torch.manual_seed(5)
    student = int8(HOST[name]).build(shape, 10).state_dict()
    assert all(torch.equal(student[k], v) for k, v in base.items())


def test_a_student_from_its_teacher_has_its_weights(lived_in):
    teacher = lived_in(HOST["convnet_32"], (1, 8, 8)).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    student = int8(HOST["convnet_32"], start="teacher").from_teacher(teacher, *SIZE)
    own = student.state_dict()
    assert all(torch.equal(own[k], v) for k, v in before.items())
    steps(student, (1, 8, 8), 2, seed=0)
    assert all(torch.equal(teacher.state_dict()[k], v) for k, v in before.items())
    assert int8(HOST["convnet_32"]).from_teacher is None
    narrow = int8(pruned(HOST["convnet_32"], 0.5)).from_teacher(teacher, *SIZE)
    assert narrow.stem[0].weight.shape[0] == 16
    with pytest.raises(UserError, match="needs a trained convnet_6"):
        int8(HOST["convnet_6"], start="teacher").from_teacher(teacher, *SIZE)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_resumes_to_the_bit(name, shape):
    whole = int8(HOST[name]).build(shape, 10)
    steps(whole, shape, 3, seed=1)
    saved = copy.deepcopy(whole.state_dict())
    steps(whole, shape, 3, seed=2)
    again = int8(HOST[name]).build(shape, 10)
    again.load_state_dict(saved)
    steps(again, shape, 3, seed=2)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_evaluation_changes_nothing(trained):
    student = trained(int8(HOST["convnet_32"]), (1, 8, 8))
    before = copy.deepcopy(student.state_dict())
    student(torch.randn(32, 1, 8, 8) * 100)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_a_copy_is_on_its_own(trained):
    student = trained(int8(HOST["convnet_6"]), (1, 8, 8))
    before = copy.deepcopy(student.state_dict())
    twin = copy.deepcopy(student)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(twin(x), student(x))
    steps(twin, (1, 8, 8), 2, seed=3)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_logits_stay_float(trained):
    student = trained(int8(HOST["convnet_6"]), (1, 8, 8))
    assert not any(isinstance(m, MovingRange) for m in student.classifier.modules())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(1, 2, 3),
        nn.ConvTranspose2d(1, 2, 3),
        nn.LSTM(3, 4),
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 2, 3, padding="same"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_refuses_layers_without_an_int8_form(layer):
    network = nn.Sequential(nn.Sequential(layer), nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"layer '0\.0'"):
        fake_quantised(network, "1")
