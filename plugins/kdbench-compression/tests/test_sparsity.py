"""The measures of zeros."""

import pytest
import torch
from kdbench_compression import int8, sparsity
from torch import nn

from kdbench import Finished, Task
from kdbench.forms import quantised
from kdbench.models.mlp import mlp


def finished(model):
    return Finished(
        model=model,
        task=Task(outputs=2),
        device="cpu",
        sample=torch.zeros(1, 4),
        logits=torch.zeros(1, 2),
        targets=torch.zeros(1, dtype=torch.int64),
        teacher_logits=None,
    )


def measured(model):
    return {m.name: m.compute(finished(model)) for m in sparsity.MEASURES}


def network():
    """8 + 24 weights, 5 of them zero; biases and batch norm full of zeros."""
    made = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Conv1d(2, 6, 2))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
        made[0].weight[0] = 0
        made[2].weight[3, 1, 0] = 0
    return made


def test_zeros_are_counted_in_weights_alone():
    assert measured(network()) == {
        "sparsity": pytest.approx(100 * 5 / 32),
        "nonzero_parameters": (8 + 2) + 4 + (24 + 6) - 5,
    }


def test_of_int8_weights_those_that_are_stored():
    pytest.importorskip("torchao")
    made = network()
    with torch.no_grad():
        made[0].weight[1, 0] = 1e-4  # rounded away beside the channel's other weights
    assert measured(made)["nonzero_parameters"] == 39
    for quantise in (quantised.int8_dynamic, quantised.int8_weights):
        expected = {"sparsity": 100 * 6 / 32, "nonzero_parameters": 38}
        assert measured(quantise(made)) == expected


def test_of_a_student_trained_for_int8_what_it_stores():
    model = int8(mlp(4))
    deployed = model.deploy(model.build((3,), 2))
    layers = [deployed.network.layers[0][0], deployed.network.classifier]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    assert measured(deployed) == {
        "sparsity": 100 * zeros / (12 + 8),
        "nonzero_parameters": 12 + 4 + 8 + 2 - zeros,
    }


def test_what_has_no_weights_has_no_sparsity():
    class Tree(nn.Module):
        parameter_count = None

    assert measured(Tree()) == {"sparsity": None, "nonzero_parameters": None}
    assert measured(nn.Flatten())["sparsity"] is None
