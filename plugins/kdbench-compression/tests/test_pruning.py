"""pruned: which channels stay, the same architecture always, the teacher untouched."""

import copy
import itertools

import pytest
import torch
from kdbench_compression import int8, pruned
from torch import nn

from kdbench import Dataset, Task, UserError
from kdbench.models import kdbench_models
from kdbench.models.taps import TappedModel, probe

HOST = {model.name: model for model in kdbench_models()}
SIZE = ((1, 8, 8), 10)
"""Of digits: shape of the inputs, number of classes."""
CASES = [
    ("convnet_32", (1, 8, 8)),
    ("convnet_6", (3, 28, 28)),
    ("mlp_bn_256_128", (1, 8, 8)),
    ("mlp_512_256", (1, 28, 28)),
    ("lenet", (1, 28, 28)),
]


def dataset(shape):
    return Dataset(
        name="none",
        summary="",
        source="",
        task=Task(outputs=10),
        input_shape=shape,
        load=lambda folder, download: None,
    )


def layers_of(network):
    """[(layer, batch norm or None)] in forward order, the classifier last."""
    found = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            found.append([module, None])
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            found[-1][1] = module
    return found


def by_hand(network, ratio, norm):
    """Li et al. 2017: prune each layer of a chain by its norms before, in place."""
    layers = layers_of(network)
    before = [layer.weight.double().abs().pow(norm) for layer, _ in layers]
    chain = zip(itertools.pairwise(layers), before, strict=False)
    for ((layer, bn), (after, _)), weight in chain:
        size = weight.flatten(1).sum(1)
        stays = int((1 - ratio) * len(size))
        kept = torch.tensor(sorted(size.argsort(descending=True)[:stays].tolist()))
        for part in (layer, bn) if bn else (layer,):
            for name in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(part, name, None)
                if value is not None:
                    value.data = value.data[kept]
        positions = after.weight.shape[1] // len(size)  # of a flattened map
        wide = (kept[:, None] * positions + torch.arange(positions)).flatten()
        after.weight.data = after.weight.data[:, wide]


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_keeps_the_channels_of_the_largest_norm(lived_in, name, shape, ratio, norm):
    teacher = lived_in(HOST[name], shape)
    student = pruned(HOST[name], ratio, norm).from_teacher(teacher, shape, 10)
    expected = copy.deepcopy(teacher)
    by_hand(expected, ratio, norm)
    wanted = expected.state_dict()
    assert student.state_dict().keys() == wanted.keys()
    for key, value in student.state_dict().items():
        assert torch.equal(value, wanted[key]), key


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_ratio_zero_answers_as_the_teacher(lived_in, name, shape):
    teacher = lived_in(HOST[name], shape)
    student = pruned(HOST[name], 0).from_teacher(teacher, shape, 10).eval()
    inputs = torch.randn(4, *shape)
    assert torch.equal(student(inputs), teacher(inputs))


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_architecture_does_not_depend_on_weights(lived_in, name, shape):
    model = pruned(HOST[name], 0.75)

    def sizes(network):
        return {key: value.shape for key, value in network.state_dict().items()}

    teachers = [lived_in(HOST[name], shape) for _ in range(2)]
    one, other = (model.from_teacher(t, shape, 10) for t in teachers)
    assert sizes(one) == sizes(other) == sizes(model.build(shape, 10))
    (first, _), *_, (last, _) = layers_of(one)
    (wide, _), *_, _ = layers_of(HOST[name].build(shape, 10))
    assert first.weight.shape[1] == wide.weight.shape[1]
    assert len(last.weight) == 10


def test_the_teacher_is_left_as_it_was(lived_in):
    teacher = lived_in(HOST["convnet_32"], (1, 8, 8)).requires_grad_(False)
    seen = TappedModel(HOST["convnet_32"], teacher, ("stage1",))
    before = copy.deepcopy(teacher.state_dict())
    student = pruned(HOST["convnet_32"], 0.5).from_teacher(teacher, *SIZE)
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, before[key])
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    student(torch.randn(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in student.parameters())
    assert not seen._caught  # a hook on the teacher does not come along


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_taps_are_found_by_the_same_paths_without_data(name, shape):
    model = pruned(HOST[name], 0.5)
    wide = probe(HOST[name], tuple(model.taps), dataset(shape)).shapes
    narrow = probe(model, tuple(model.taps), dataset(shape))
    assert all(p.is_meta for p in narrow.model.parameters())
    assert narrow.shapes["logits"] == (10,)
    for tap in model.taps:
        assert narrow.shapes[tap][0] == wide[tap][0] - wide[tap][0] // 2
        assert narrow.shapes[tap][1:] == wide[tap][1:]


def test_no_layer_loses_all_its_channels():
    with pytest.raises(UserError, match="leaves none"):
        pruned(HOST["convnet_6"], 0.84).build((1, 8, 8), 10)
    network = pruned(HOST["convnet_6"], 0.8).build((1, 8, 8), 10)
    assert [len(layer.weight) for layer, _ in layers_of(network)] == [1, 1, 2, 10]


def test_names_say_base_and_share():
    assert pruned(HOST["lenet"], 0.29).name == "lenet_pruned_29"
    assert pruned(HOST["lenet"], 0.125).name == "lenet_pruned_12.5"
    assert pruned(HOST["lenet"], 0.5, norm=2).name == "lenet_pruned_50_l2"


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_refuses_an_impossible_ratio(ratio):
    with pytest.raises(UserError, match="ratio"):
        pruned(HOST["convnet_32"], ratio)


def test_refuses_a_model_that_is_deployed_as_another():
    with pytest.raises(UserError, match="let it be pruned first"):
        pruned(int8(HOST["convnet_6"]), 0.5)


@pytest.mark.parametrize("other", ["convnet_6", "mlp_bn_256_128"])
def test_refuses_a_teacher_of_another_kind(other):
    teacher = HOST[other].build((1, 8, 8), 10)
    with pytest.raises(UserError, match="needs a trained convnet_32"):
        pruned(HOST["convnet_32"], 0.5).from_teacher(teacher, *SIZE)
    with pytest.raises(UserError, match="needs a trained convnet_32"):
        pruned(HOST["convnet_32"], 0.5).from_teacher(nn.Identity(), *SIZE)
