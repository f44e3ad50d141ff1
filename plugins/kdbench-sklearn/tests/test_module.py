"""Round trip, determinism, shapes and devices of every model."""

import copy

import pytest
import torch
from kdbench_sklearn.zoo import models
from safetensors.torch import load, save

from kdbench import UserError

KINDS = ["hard", "soft", "numbers"]


def outputs_of(kind):
    return 2 if kind == "numbers" else 10


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_safetensors(digits, build, fitted, model, kind):
    module = fitted(model, kind)
    fresh = build(model, seed=1, outputs=outputs_of(kind))
    fresh.load_state_dict(load(save(module.state_dict())))
    assert torch.equal(fresh(digits.others), module(digits.others))
    assert torch.equal(fresh.get_extra_state(), module.get_extra_state())
    assert module(digits.others).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes(digits, build, fitted, model, kind):
    module = build(model, outputs=outputs_of(kind))
    module.fit(digits.inputs, getattr(digits, kind))
    assert torch.equal(module.get_extra_state(), fitted(model, kind).get_extra_state())


def test_another_seed_is_another_random_state(build, model):
    assert build(model, 0).random_state == build(model, 0).random_state
    assert build(model, 0).random_state != build(model, 1).random_state


def test_probabilities_sum_to_one(digits, fitted, model):
    module = fitted(model, "soft")
    total = module(digits.others).exp().sum(1)
    if model.probabilities:
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-4)
    else:
        assert (total - 1).abs().max() > 0.1


def test_meta_tensors_give_the_shape(build, model):
    with torch.device("meta"):
        module = model.build((1, 8, 8), 10)
        found = module(torch.zeros(3, 1, 8, 8))
    assert found.is_meta
    assert found.shape == (3, 10)


def test_a_copy_is_as_good(digits, fitted, model):
    module = fitted(model)
    twin = copy.deepcopy(module).to("cpu").eval()
    assert torch.equal(twin(digits.others), module(digits.others))


def test_unfitted(digits, build, model):
    module = build(model)
    assert len(module.get_extra_state()) == 0
    fresh = build(model)
    fresh.load_state_dict(module.state_dict())
    assert not fresh.fitted
    with pytest.raises(UserError, match=f"'{model.name}' has learned nothing"):
        fresh(digits.others)


def test_inputs_of_another_size(digits, fitted, model):
    module = fitted(model)
    with pytest.raises(UserError, match="fitted on 64 inputs and is given 32"):
        module(digits.others[:, :, :4])


def test_targets_of_another_size(digits, build, model):
    with pytest.raises(UserError, match=r"10 outputs and was given targets \(160, 2\)"):
        build(model).fit(digits.inputs, digits.numbers)


def test_inputs_that_want_gradients_are_taken(digits, build):
    [model] = [m for m in models() if m.name == "knn"]
    module = build(model)
    module.fit(digits.inputs.clone().requires_grad_(), digits.soft)
    assert not module(digits.others.clone().requires_grad_()).requires_grad


def test_parameters_are_counted_where_they_are_weights(build, fitted, model):
    assert build(model).parameter_count is None
    module = fitted(model, "soft")
    linear = model.name in ("linear_svm", "logistic_regression")
    assert module.parameter_count == (650 if linear else None)
    assert module.macs_unknown
