"""The keyword nets: the papers' sizes, shapes and taps, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kdbench_audio import kdbench_datasets, kdbench_models

from kdbench import Task
from kdbench.models.taps import TappedModel, probe

DATASET = kdbench_datasets()[0]
MODELS = {model.name: model for model in kdbench_models()}
SHAPE = (1, 40, 61)
TAPS = ("stem", "stages", "pooled")


def weights(name: str, outputs: int) -> int:
    """Parameters of convolutions and classifier, without biases and batch norm."""
    module = MODELS[name].build(SHAPE, outputs)
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)


@pytest.mark.parametrize(
    ("name", "expected"), [("kws_res8", 110_000), ("kws_res8_narrow", 19_900)]
)
def test_residual_nets_are_as_large_as_the_papers(name, expected):
    """Tang & Lin 2018, table 2: 110K and 19.9K, for 12 classes."""
    assert weights(name, 12) == pytest.approx(expected, rel=4e-3)


@pytest.mark.parametrize("width", [4, 8, 16, 64])
def test_separable_nets_by_hand(width):
    stem, separable = 8 * 8 * width, 9 * width + width * width
    assert weights(f"ds_cnn_{width}", 10) == stem + 4 * separable + 10 * width


@pytest.mark.parametrize("name", MODELS)
def test_teacher_and_student_stages_are_of_one_size(name):
    tapped = probe(MODELS[name], TAPS, DATASET)
    maps = [tapped.shapes[t] for t in ("stem", "stage1", "stage2", "stage3")]
    assert {shape[1:] for shape in maps} == {(10, 16)}
    assert len({shape[0] for shape in maps}) == 1
    assert tapped.shapes["pooled"] == maps[-1][:1]
    assert tapped.shapes["logits"] == (10,)
    assert list(tapped.stages) == ["stage1", "stage2", "stage3"]


@pytest.mark.parametrize("name", MODELS)
def test_pooled_is_the_mean_of_the_last_stage(name):
    torch.manual_seed(0)
    module = MODELS[name].build(SHAPE, 10).eval()
    answer = TappedModel(MODELS[name], module, TAPS)(torch.randn(3, *SHAPE))
    mean = answer.features["stage3"].mean((2, 3))
    torch.testing.assert_close(answer.features["pooled"], mean)
    torch.testing.assert_close(answer.logits, module.classifier(mean))


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    module = MODELS[name].build(SHAPE, 10)
    module(torch.randn(8, *SHAPE)).square().sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.count_nonzero() > 0, key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 13, 9), (1, 64, 101)], ids=str)
def test_other_numbers_of_bands_and_frames(name, shape):
    other = replace(DATASET, input_shape=shape, task=Task(outputs=35))
    assert probe(MODELS[name], TAPS, other).shapes["logits"] == (35,)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (40, 61), (1, 7, 61), (784,)], ids=str)
def test_other_inputs_are_refused(name, shape):
    with pytest.raises(ValueError, match=r"needs inputs of \(1, mels, frames\)"):
        MODELS[name].build(shape, 10)
