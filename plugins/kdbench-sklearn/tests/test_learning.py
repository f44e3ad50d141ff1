"""With one-hot targets, learning from soft targets is learning from labels."""

import numpy as np
import pytest
import torch
from kdbench_sklearn.learning import are_probabilities, weighted_rows
from kdbench_sklearn.zoo import (
    DEPTH,
    NEIGHBOURS,
    gradient_boosting,
    kernel_svm,
    linear_svm,
    logistic_regression,
    models,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from kdbench import UserError

MODELS = {model.name: model for model in models()}


def flat(x):
    return x.flatten(1).numpy()


def test_a_tree_on_one_hot_targets_is_the_gini_classifier(digits, build):
    ours = build(MODELS["decision_tree"])
    ours.fit(digits.inputs, digits.hard)
    plain = DecisionTreeClassifier(
        criterion="gini", max_depth=DEPTH, random_state=ours.random_state
    ).fit(flat(digits.inputs), digits.labels)
    [grown] = ours.learned.estimators
    np.testing.assert_array_equal(grown.tree_.feature, plain.tree_.feature)
    np.testing.assert_allclose(grown.tree_.threshold, plain.tree_.threshold)
    # squared error, a mean over the C classes, is Gini impurity / C
    np.testing.assert_allclose(10 * grown.tree_.impurity, plain.tree_.impurity)
    found = ours(digits.others).exp().numpy()
    np.testing.assert_allclose(
        found, plain.predict_proba(flat(digits.others)), atol=2e-6
    )


def test_neighbours_on_one_hot_targets_vote(digits, build):
    ours = build(MODELS["knn"])
    ours.fit(digits.inputs, digits.hard)
    plain = KNeighborsClassifier(NEIGHBOURS, algorithm="brute")
    plain.fit(flat(digits.inputs), digits.labels)
    found = ours(digits.others).exp().numpy()
    np.testing.assert_allclose(
        found, plain.predict_proba(flat(digits.others)), atol=2e-6
    )


@pytest.mark.parametrize(
    "make", [linear_svm, kernel_svm, logistic_regression, gradient_boosting]
)
def test_weighted_labels_of_one_hot_targets_are_labels(digits, fitted, make):
    ours = fitted(MODELS[make.__name__], "hard")
    plain = make(ours.random_state).fit(flat(digits.inputs), digits.labels.numpy())
    np.testing.assert_array_equal(
        ours(digits.others).argmax(1), plain.predict(flat(digits.others))
    )


def test_weighted_rows_of_logistic_regression_minimise_the_soft_cross_entropy(
    digits, build
):
    """Against the same convex problem solved by torch on the soft targets."""
    ours = build(MODELS["logistic_regression"])
    ours.fit(digits.inputs, digits.soft)
    [fitted] = ours.learned.estimators
    x = digits.inputs.flatten(1).double()
    item, label, weight = weighted_rows(digits.soft.double().numpy())
    kept = torch.zeros(len(x), 10, dtype=torch.float64)
    kept[item, label] = torch.as_tensor(weight)
    weights = torch.zeros(10, 64, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=100, line_search_fn="strong_wolfe"
    )

    def objective(w, b):
        log_p = (x @ w.T + b).log_softmax(1)
        return -(kept * log_p).sum() + w.square().sum() / (2 * fitted.C)

    def step():
        solver.zero_grad()
        value = objective(weights, bias)
        value.backward()
        return value

    solver.step(step)
    with torch.no_grad():
        best = objective(weights, bias).item()
        w, b = (torch.as_tensor(v).double() for v in (fitted.coef_, fitted.intercept_))
        assert best <= objective(w, b).item() < 1.001 * best
        assert objective(torch.zeros_like(w), torch.zeros_like(b)).item() > 1.5 * best


def test_soft_targets_change_what_is_learned(digits, fitted, model):
    hard, soft = fitted(model, "hard"), fitted(model, "soft")
    assert not torch.equal(hard(digits.others), soft(digits.others))


def test_rows_of_an_item_weigh_one_and_small_ones_are_dropped():
    targets = np.array([[0.6, 0.396, 0.004], [0.0, 0.0, 1.0], [0.3, 0.3, 0.4]])
    item, label, weight = weighted_rows(targets)
    assert item.tolist() == [0, 0, 1, 2, 2, 2]
    assert label.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(weight[:2], [0.6 / 0.996, 0.396 / 0.996])
    np.testing.assert_allclose(np.bincount(item, weight), 1)


def test_many_equally_likely_classes_are_kept():
    item, _, _ = weighted_rows(np.full((2, 1000), 1e-3))
    assert len(item) == 2000


def test_labels_have_no_weights():
    assert weighted_rows(np.eye(4)[[2, 0, 3]])[2] is None


def test_standardised_numbers_are_no_probabilities(digits):
    assert are_probabilities(digits.soft.numpy())
    assert are_probabilities(digits.hard.numpy())
    assert not are_probabilities(digits.numbers.numpy())
    assert not are_probabilities(np.ones((3, 1)))
    assert not are_probabilities(np.full((3, 2), 0.25))


@pytest.mark.parametrize("outputs", [1, 2])
def test_numbers_are_fitted(digits, build, model, outputs):
    module = build(model, outputs=outputs)
    module.fit(digits.inputs, digits.numbers[:, :outputs])
    found = module(digits.inputs)
    assert found.shape == (len(digits.inputs), outputs)
    error = (found - digits.numbers[:, :outputs]).square().mean(0)
    assert (error < 0.6).all()  # of a variance of 1


def test_classes_that_are_absent_are_the_last_choice(digits, build, model):
    module = build(model)
    some = digits.labels < 4
    module.fit(digits.inputs[some], digits.hard[some])
    found = module(digits.others)
    assert found.shape == (len(digits.others), 10)
    assert found.isfinite().all()
    assert (found.argmax(1) < 4).all()
    assert found.topk(4).indices.max() < 4 or model.probabilities


def test_one_class_only(digits, build, model):
    module = build(model)
    some = digits.labels == 7
    module.fit(digits.inputs[some], digits.hard[some])
    fresh = build(model)
    fresh.load_state_dict(module.state_dict())
    assert (fresh(digits.others).argmax(1) == 7).all()
    assert fresh(digits.others).isfinite().all()


def test_two_classes_are_two_columns(digits, build, model):
    module = build(model, outputs=2)
    odd = digits.labels % 2
    module.fit(digits.inputs, torch.nn.functional.one_hot(odd, 2).float())
    found = module(digits.inputs)
    assert found.shape == (len(odd), 2)
    assert (found.argmax(1) == odd).float().mean() > 0.8


def test_constant_inputs(digits, build, model):
    module = build(model)
    module.fit(torch.zeros_like(digits.inputs), digits.soft)
    assert module(digits.others).isfinite().all()


@pytest.mark.parametrize("what", ["inputs", "targets"])
def test_nan_is_refused(digits, build, model, what):
    given = {"inputs": digits.inputs.clone(), "targets": digits.soft.clone()}
    given[what][3] = float("nan")
    with pytest.raises(UserError, match=f"{what} of 1 of 160 items hold NaN"):
        build(model).fit(**given)
