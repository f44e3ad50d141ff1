"""behind: a network's part behind a stage is the network's own, or refused."""

from functools import partial

import pytest
import torch
from kdbench_mutual_learning.behind import behind
from torch import nn

from kdbench.models import kdbench_models
from kdbench.models.external import torchvision_model

MODELS = {model.name: model for model in kdbench_models() if hasattr(model, "taps")}
NETWORKS = {
    "resnet8": ((3, 16, 16), "stages.1"),
    "wrn_16_1": ((3, 16, 16), "stages.1"),
    "vgg8": ((3, 16, 16), "stages.2"),
    "mobilenetv2": ((3, 32, 32), "stages.2"),
    "shufflenetv2": ((3, 16, 16), "stages.1"),
    "convnet_6": ((1, 8, 8), "stage1"),
    "lenet_half": ((1, 28, 28), "stage1"),
    "mlp_bn_8_8": ((1, 8, 8), "layers.0"),
    "torchvision:resnet18": ((3, 32, 32), "layer3"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_stage_and_what_is_behind_it_are_the_network(name):
    shape, path = NETWORKS[name]
    known = partial(torchvision_model, name.partition(":")[2])
    network = (MODELS.get(name) or known()).build(shape, 10).eval()
    part = behind(network, path)
    caught = {}
    network.get_submodule(path).register_forward_hook(
        lambda _module, _inputs, output: caught.update(stage=output)
    )
    inputs = torch.randn(2, *shape)
    expected = network(inputs)
    assert torch.equal(part(caught["stage"]), expected)
    own = {id(p) for p in network.parameters()}
    behind_it = {id(p) for p in part.parameters()}
    assert behind_it < own  # its own ones, and not all of them
    stage = {id(p) for p in network.get_submodule(path).parameters()}
    assert not behind_it & stage


def test_without_data():
    with torch.device("meta"):
        part = behind(MODELS["resnet8"].build((3, 16, 16), 10), "stages.1")
    assert next(part.parameters()).is_meta


class Toy(nn.Module):
    """Two linear layers, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.first(inputs)
        if self.way == "twice":
            hidden = self.first(hidden)
        if self.way == "past":
            hidden = hidden + inputs
        if self.way == "choice" and hidden.sum() > 0:
            hidden = -hidden
        return self.second(hidden)


@pytest.mark.parametrize(
    ("way", "path", "why"),
    [
        ("twice", "first", "calls first 2 times"),
        ("past", "first", "goes past first"),
        ("choice", "first", "cannot be traced"),
        ("plain", "third", "calls third 0 times"),
    ],
)
def test_what_cannot_be_cut_is_refused(way, path, why):
    with pytest.raises(ValueError, match=why):
        behind(Toy(way), path)


def test_cuts_a_toy():
    network = Toy("plain")
    hidden = torch.randn(2, 4)
    assert torch.equal(behind(network, "first")(hidden), network.second(hidden))
