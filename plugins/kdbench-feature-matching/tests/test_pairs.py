"""Every strategy takes every standard CIFAR-100 pair, or says why not, as expected."""

import functools
from dataclasses import replace

import kdbench_feature_matching
import pytest

from kdbench import Model
from kdbench.data.known import IMAGE_SETS
from kdbench.models import kdbench_models, pairs
from kdbench.models.taps import probe, resolve

FSP = {
    "wrn_40_2-wrn_40_1": "(16, 32, 32) and (32, 32, 32)",
    "vgg13-mobilenetv2": "(12, 16, 16) and (128, 16, 16)",
    "resnet50-mobilenetv2": "(12, 16, 16) and (256, 32, 32)",
    "resnet50-vgg8": "(128, 16, 16) and (256, 32, 32)",
    "resnet32x4-shufflenetv1": "(240, 16, 16) and (64, 32, 32)",
    "resnet32x4-shufflenetv2": "(116, 16, 16) and (64, 32, 32)",
    "wrn_40_2-shufflenetv1": "(240, 16, 16) and (32, 32, 32)",
    "resnet20-vgg7_narrow": "(32, 16, 16) and (16, 32, 32)",
    "wrn_16_2-wrn_16_1": "(16, 32, 32) and (32, 32, 32)",
}
EXCEPTIONS = {
    ("fsp", pair): f"stages must be equally wide in both models: {shapes}"
    for pair, shapes in FSP.items()
}
"""(strategy, pair) -> the whole sentence of `supports`; all others must be None."""

STANDARD = {
    pair.name: pair for pair in pairs.PAIRS if pair.summary.startswith("CIFAR-100")
}
STRATEGIES = {cls.name: cls for cls in kdbench_feature_matching.kdbench_strategies()}


CIFAR100 = next(offer for offer in IMAGE_SETS if offer.name == "cifar100")
MODELS = {m.name: m for m in kdbench_models() if isinstance(m, Model)}


@functools.cache
def probed(model, taps):
    """As the host probes; by taps that the model declares in one slow step for all."""
    spec = MODELS[model]
    declared = tuple(spec.taps)
    if taps == declared or set(taps) - {"stages", "preacts", *declared}:
        return probe(spec, taps, CIFAR100)
    everything = probed(model, declared)
    paths = resolve(spec, everything.model, taps)
    shapes = {tap: everything.shapes[tap] for tap in (*paths, "logits")}
    return replace(everything, shapes=shapes, paths=paths)


def test_these_are_the_standard_pairs():
    assert len(STANDARD) == 16
    assert {name for _, name in EXCEPTIONS} <= set(STANDARD)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_standard_pair_is_taken_or_refused_as_expected(name):
    strategy = STRATEGIES[name]()
    for pair in STANDARD.values():
        student = probed(pair.students[0], strategy.taps)
        teacher = probed(pair.teachers[0], strategy.taps)
        expected = EXCEPTIONS.get((name, pair.name))
        assert strategy.supports(student, teacher) == expected, pair.name
