"""magnitude_pruned: which weights go, and that they are gone for good."""

import copy
import dataclasses
import math

import pytest
import torch
from kdbench_compression import int8, magnitude_pruned, pruned
from torch import nn
from torch.nn import functional as F

from kdbench import Model, UserError
from kdbench.data.digits import DIGITS
from kdbench.measure.size import macs, parameters, serialised
from kdbench.models import kdbench_models
from kdbench.models.taps import TappedModel, probe

HOST = {m.name: m for m in kdbench_models() if isinstance(m, Model)}
SIZE = ((1, 8, 8), 10)
CASES = ["convnet_6", "mlp_bn_8_8", "convnet_32"]


def weights_of(network):
    """Every weight of a dense layer or convolution, in one row."""
    kinds = (nn.Linear, nn.Conv2d)
    layers = [x for x in network.modules() if isinstance(x, kinds)]
    return torch.cat([x.weight.detach().flatten() for x in layers])


def made(name, share, student):
    return magnitude_pruned(HOST[name], share).from_teacher(student, *SIZE)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("name", CASES)
def test_the_smallest_of_the_whole_network_go(lived_in, name, share):
    student = lived_in(HOST[name], (1, 8, 8))
    before, after = weights_of(student), weights_of(made(name, share, student))
    gone = after == 0
    assert gone.sum() == round(share * len(before))
    assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(before[~gone], after[~gone])


def test_by_hand_over_layers_of_unequal_size():
    student = HOST["mlp_bn_8_8"].build(*SIZE)
    layers = [x for x in student.modules() if isinstance(x, nn.Linear)]
    with torch.no_grad():
        for layer, scale in zip(layers, (1.0, 0.01, 100.0), strict=True):
            layer.weight.copy_(torch.where(layer.weight > 0, scale, -scale))
    # 512, 64 and 80 weights; 328 go: the 64 smallest, 264 of the 512, none of the last
    after = made("mlp_bn_8_8", 0.5, student)
    kept = [int((after.get_submodule(p).weight != 0).sum()) for p in PATHS]
    assert kept == [248, 0, 80]


PATHS = ("layers.0.0", "layers.1.0", "classifier")


def test_of_equal_weights_as_many_go_as_were_asked_for():
    student = HOST["mlp_bn_8_8"].build(*SIZE)
    for path in PATHS:
        nn.init.constant_(student.get_submodule(path).weight, 0.5)
    masks = [weights_of(made("mlp_bn_8_8", 0.8, student)) for _ in range(2)]
    assert int((masks[0] == 0).sum()) == round(0.8 * 656)
    assert torch.equal(*masks)


def test_biases_and_norms_stay_whole(lived_in):
    student = lived_in(HOST["convnet_6"], (1, 8, 8))
    after = magnitude_pruned(HOST["convnet_6"], 0.9)
    state = after.deploy(after.from_teacher(student, *SIZE)).state_dict()
    for name, value in student.state_dict().items():
        if value.ndim < 2:
            assert torch.equal(state[name], value), name


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
OPTIMISERS = {
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "momentum": (SGD, {"momentum": 0.9, "fused": True}),
    "adam": (ADAM, {"weight_decay": 0.1, "fused": True}),
    "adamw": (ADAMW, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_zeros_stay_through_training_and_the_others_move(lived_in, name):
    model = magnitude_pruned(HOST["convnet_6"], 0.8)
    network = model.from_teacher(lived_in(HOST["convnet_6"], (1, 8, 8)), *SIZE)
    network.requires_grad_().train()
    before = weights_of(network)
    kind, settings = OPTIMISERS[name]
    stepper = kind(network.parameters(), lr=0.05, **settings)
    for _ in range(20):
        inputs = torch.randn(16, 1, 8, 8)
        stepper.zero_grad()
        F.cross_entropy(network(inputs), torch.randint(10, (16,))).backward()
        stepper.step()
    deployed = model.deploy(network.eval())
    after = weights_of(deployed)
    assert torch.equal(after == 0, before == 0)
    moved = after[before != 0] != before[before != 0]
    assert moved.double().mean() > 0.5  # some are behind a dead ReLU
    inputs = torch.randn(4, 1, 8, 8)
    assert torch.equal(deployed(inputs), network(inputs))
    assert torch.equal(deployed(inputs[:1]), network(inputs[:1]))


def test_what_is_deployed_is_a_plain_network_of_the_base(lived_in):
    base = HOST["convnet_6"]
    model = magnitude_pruned(base, 0.5)
    student = lived_in(base, (1, 8, 8))
    deployed = model.deploy(model.from_teacher(student, *SIZE))
    plain = model.deploy(model.build(*SIZE)).eval()
    assert [type(m) for m in deployed.modules()] == [type(m) for m in student.modules()]
    plain.load_state_dict(deployed.state_dict())
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(plain(inputs), deployed(inputs))
    assert parameters(deployed) == parameters(student)
    assert macs(deployed, inputs[:1]) == macs(student, inputs[:1])
    assert len(serialised(deployed)) == len(serialised(student))


def test_the_student_is_left_as_it_was(lived_in):
    student = lived_in(HOST["convnet_6"], (1, 8, 8))
    before = copy.deepcopy(student.state_dict())
    network = made("convnet_6", 0.5, student)
    for value in network.state_dict().values():
        value.zero_()
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("name", CASES)
def test_taps_are_at_the_same_paths(lived_in, name):
    base = HOST[name]
    model = magnitude_pruned(base, 0.5)
    wanted = tuple(model.taps)
    one, other = (probe(m, wanted, DIGITS) for m in (base, model))
    assert (one.shapes, one.paths) == (other.shapes, other.paths)
    network = model.from_teacher(lived_in(base, (1, 8, 8)), *SIZE)
    seen = TappedModel(model, network, wanted)
    outputs = seen(torch.randn(2, 1, 8, 8))
    shapes = {tap: tuple(x.shape[1:]) for tap, x in outputs.features.items()}
    assert shapes == {tap: one.shapes[tap] for tap in shapes}
    assert isinstance(outputs.classifier, nn.Linear)
    assert copy.deepcopy(network)(torch.randn(2, 1, 8, 8)).requires_grad


def test_pruned_again_the_zeros_stay_zero(lived_in):
    base = HOST["convnet_6"]
    first = magnitude_pruned(base, 0.5)
    half = first.deploy(first.from_teacher(lived_in(base, (1, 8, 8)), *SIZE))
    second = magnitude_pruned(first, 0.8)
    assert second.name == "convnet_6/magnitude_50/magnitude_80"
    few = weights_of(second.deploy(second.from_teacher(half, *SIZE)))
    assert (few[weights_of(half) == 0] == 0).all()
    assert int((few == 0).sum()) == round(0.8 * len(few))


def test_a_pruned_base_keeps_its_narrow_layers(lived_in):
    model = magnitude_pruned(pruned(HOST["convnet_6"], 0.5), 0.5)
    narrow = pruned(HOST["convnet_6"], 0.5).from_teacher(
        lived_in(HOST["convnet_6"], (1, 8, 8)), *SIZE
    )
    after = weights_of(model.from_teacher(narrow, *SIZE))
    assert int((after == 0).sum()) == round(len(after) / 2)
    assert len(after) == 9 * (3 + 9 + 18) + 60


@pytest.mark.parametrize("share", [0, 1, -0.5, math.nan])
def test_an_impossible_share(share):
    with pytest.raises(UserError, match="> 0 and < 1"):
        magnitude_pruned(HOST["convnet_6"], share)


def test_what_has_no_weights_or_is_deployed_otherwise():
    with pytest.raises(UserError, match="let it be pruned first"):
        magnitude_pruned(int8(HOST["convnet_6"]), 0.5)
    fitted = dataclasses.replace(HOST["convnet_6"], learner="fitted")
    with pytest.raises(UserError, match="no weights to prune"):
        magnitude_pruned(fitted, 0.5)
    with pytest.raises(UserError, match="Flatten has no dense layer"):
        made("convnet_6", 0.5, nn.Flatten())


def test_a_weight_that_is_computed_is_left_alone():
    """Of weight norm, which the file keeps as two tensors."""
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    network = nn.Sequential(normed, nn.Linear(8, 10))
    model = magnitude_pruned(HOST["mlp_bn_8_8"], 0.5)
    after = model.from_teacher(network, *SIZE)
    assert int((after[1].weight == 0).sum()) == 40
    assert torch.equal(after[0].weight, normed.weight)
    deployed = model.deploy(after)
    assert deployed.state_dict().keys() == network.state_dict().keys()
