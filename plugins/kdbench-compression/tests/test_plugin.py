"""What the plugin offers: names, pairs, the suite; every model without data."""

import kdbench_compression
import pytest
import torch
from kdbench_compression import students

from kdbench import Dataset, Task
from kdbench.config import read_suite
from kdbench.models import kdbench_models
from kdbench.models.taps import probe
from kdbench.plugins import Host

OFFERED = {model.name: model for model in students.models()}


def shape_for(name):
    """Of MNIST where the name tells, else of digits."""
    return (1, 28, 28) if "lenet" in name or "mlp_512" in name else (1, 8, 8)


def test_names():
    assert set(OFFERED) == {
        "convnet_32_pruned_50",
        "convnet_32_pruned_75",
        "mlp_bn_256_128_pruned_75",
        "lenet_pruned_50",
        "mlp_512_256_pruned_50",
        "int8_convnet_32_from_teacher",
        "int8_lenet_from_teacher",
        "int8_convnet_6",
        "int8_convnet_32_pruned_75",
        "convnet_16",
        "convnet_8",
        "mlp_bn_64_32",
    }


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_every_model_is_built_without_data(name):
    shape = shape_for(name)
    dataset = Dataset(
        name="none",
        summary="",
        source="",
        task=Task(outputs=10),
        input_shape=shape,
        load=lambda folder, download: None,
    )
    model = OFFERED[name]
    found = probe(model, tuple(model.taps), dataset)
    assert set(found.shapes) == {*model.taps, "logits"}
    assert all(p.is_meta for p in found.model.parameters())
    real = {k: v.shape for k, v in model.build(shape, 10).state_dict().items()}
    assert {k: v.shape for k, v in found.model.state_dict().items()} == real


@pytest.mark.parametrize(
    ("pruned", "fresh"),
    [
        ("convnet_32_pruned_50", "convnet_16"),
        ("convnet_32_pruned_75", "convnet_8"),
        ("mlp_bn_256_128_pruned_75", "mlp_bn_64_32"),
        ("mlp_512_256_pruned_50", "mlp_256_128"),  # the student of the host's mnist-mlp
    ],
)
def test_fresh_networks_are_as_wide_as_the_pruned(pruned, fresh):
    host = {model.name: model for model in kdbench_models()}
    shape = shape_for(pruned)
    one, other = (
        {**host, **OFFERED}[name].build(shape, 10).state_dict()
        for name in (pruned, fresh)
    )
    assert {k: v.shape for k, v in one.items()} == {
        k: v.shape for k, v in other.items()
    }


def test_pairs_have_their_teacher_and_start_from_it():
    host = {model.name: model for model in kdbench_models()}
    pairs = students.pairs()
    assert {name for pair in pairs for name in pair.students} == set(OFFERED)
    for pair in pairs:
        [teacher], [student] = pair.teachers, pair.students
        shape = shape_for(teacher)
        start = OFFERED[student].from_teacher
        if start is not None:
            network = start(host[teacher].build(shape, 10), shape, 10)
            assert network(torch.randn(2, *shape)).shape == (2, 10)


def test_the_suite_is_packaged_and_whole():
    [suite_file] = kdbench_compression.kdbench_suites()
    suite = read_suite(suite_file.path)
    assert suite_file.name == "compress"
    host = Host()
    for pair in suite.pairs:
        host.get("pairs", pair)
    assert suite.seeds == 3
