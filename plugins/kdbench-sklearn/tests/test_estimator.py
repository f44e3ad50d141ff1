"""A user's own estimator, and what is said where it lacks something."""

# ruff: noqa: N803 - scikit-learn's own names of arguments
import textwrap

import numpy as np
import pytest
import torch
from kdbench_sklearn import estimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import AdaBoostClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor

from kdbench import UserError
from kdbench.plugins import Host, code_of


class Nearest:
    """An estimator that derives from nothing: the nearest class mean."""

    def __init__(self, random_state=0):
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        self.classes_ = np.unique(y)
        self.means = np.stack(
            [
                np.average(X[y == c], axis=0, weights=weight[y == c])
                for c in self.classes_
            ]
        )

    def predict_proba(self, X):
        far = ((X[:, None] - self.means) ** 2).sum(2)
        close = np.exp(far.min(1, keepdims=True) - far)
        return close / close.sum(1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


NEAREST = f"{Nearest.__module__}.Nearest"


class Mean:
    """A regressor that derives from nothing."""

    def fit(self, X, y):
        self.mean = y.mean(0)

    def predict(self, X):
        return np.broadcast_to(self.mean, (len(X), *np.shape(self.mean)))


def mine(make, **more):
    return estimator("mine", "my own", make, **more)


def test_one_that_derives_from_nothing(digits, build):
    model = mine(lambda seed: Nearest(random_state=seed), trusted=(NEAREST,))
    module = build(model)
    module.fit(digits.inputs, digits.soft)
    [learned] = module.learned.estimators
    assert learned.random_state == module.random_state
    fresh = build(model)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(digits.others), module(digits.others))
    assert (module(digits.inputs).argmax(1) == digits.labels).float().mean() > 0.8


def test_its_types_must_be_vouched_for(digits, build):
    with pytest.raises(UserError, match=r"'mine'.*Nearest; where they are harmless"):
        build(mine(Nearest)).fit(digits.inputs, digits.hard)


def test_a_regressor_that_derives_from_nothing(digits, build):
    trusted = (f"{Mean.__module__}.Mean",)
    module = build(mine(lambda seed: Mean(), trusted=trusted))
    module.fit(digits.inputs, digits.soft)
    found = module(digits.others)
    torch.testing.assert_close(found[0].exp(), digits.soft.mean(0))
    numbers = build(mine(lambda seed: Mean(), trusted=trusted), outputs=2)
    numbers.fit(digits.inputs, digits.numbers + 1)
    torch.testing.assert_close(
        numbers(digits.others)[0], (digits.numbers + 1).mean(0), atol=1e-5, rtol=0
    )


def test_labels_are_consecutive_where_classes_are_absent(digits, build):
    """Gradient boosting libraries refuse labels other than 0, 1, ..., k - 1."""

    class Strict(Nearest):
        def fit(self, X, y, sample_weight=None):
            assert set(y) == set(range(len(set(y))))
            super().fit(X, y, sample_weight)

    Strict.__module__, Strict.__qualname__ = "strict", "Strict"
    module = build(mine(lambda seed: Strict(), trusted=("strict.Strict",)))
    some = digits.labels >= 6
    module.fit(digits.inputs[some], digits.hard[some])
    right = module(digits.inputs[some]).argmax(1) == digits.labels[some]
    assert right.float().mean() > 0.8


def test_an_ensemble_of_scikit_learn(digits, build):
    module = build(mine(lambda seed: AdaBoostClassifier(random_state=seed)))
    module.fit(digits.inputs, digits.soft)
    fresh = build(mine(lambda seed: AdaBoostClassifier(random_state=seed)))
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(digits.others), module(digits.others))


def test_no_predict_proba(build):
    message = r"'mine' \(LinearSVC\) has no predict_proba.*probabilities=False"
    with pytest.raises(UserError, match=message):
        build(mine(lambda seed: LinearSVC(random_state=seed)))
    build(mine(lambda seed: LinearSVC(random_state=seed), probabilities=False))


def test_no_sample_weight(digits, build):
    module = build(mine(lambda seed: KNeighborsClassifier()))
    module.fit(digits.inputs, digits.hard)
    message = r"'mine' \(KNeighborsClassifier\).*takes no sample_weight.*hard_pseudo"
    with pytest.raises(UserError, match=message):
        module.fit(digits.inputs, digits.soft)


@pytest.mark.parametrize("lacks", ["fit", "predict"])
def test_no_estimator_at_all(build, lacks):
    other = "predict" if lacks == "fit" else "fit"
    thing = type("Half", (), {other: lambda *_: None})
    with pytest.raises(UserError, match=rf"'mine' \(Half\) has no {lacks}\(\)"):
        build(mine(lambda seed: thing()))


def test_a_classifier_without_counterpart_cannot_learn_numbers(digits, build):
    module = build(mine(lambda seed: LinearDiscriminantAnalysis()), outputs=2)
    with pytest.raises(UserError, match=r"classifier.*estimator\(..., regressor="):
        module.fit(digits.inputs, digits.numbers)
    given = mine(
        lambda seed: LinearDiscriminantAnalysis(), regressor=DecisionTreeRegressor
    )
    with pytest.raises(TypeError):
        build(given)  # DecisionTreeRegressor(0): a function of random_state is wanted


def test_labels_only_are_votes(digits, build):
    class Votes(Nearest):
        predict_proba = property()  # asking for it raises AttributeError

        def predict(self, X):
            return self.classes_[Nearest.predict_proba(self, X).argmax(1)]

    Votes.__module__, Votes.__qualname__ = "votes", "Votes"
    model = mine(lambda seed: Votes(), probabilities=False, trusted=("votes.Votes",))
    module = build(model)
    module.fit(digits.inputs, digits.soft)
    assert module.learned.way == "labels"
    found = module(digits.inputs)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert (found.argmax(1) == digits.labels).float().mean() > 0.8


PLUGIN = """
from sklearn.naive_bayes import GaussianNB
from kdbench import hookimpl
from kdbench_sklearn import estimator

@hookimpl
def kdbench_models():
    return [estimator("bayes", "naive Bayes", lambda seed: GaussianNB({setting}))]
"""


def test_a_plugin_file_of_three_lines(tmp_path, digits, build):
    hashes = []
    for setting in ("", "var_smoothing=0.01"):
        file = tmp_path / f"my{len(hashes)}.py"
        file.write_text(textwrap.dedent(PLUGIN.format(setting=setting)))
        model = Host(files=[file]).model("bayes")
        module = build(model)
        module.fit(digits.inputs, digits.soft)
        assert (module(digits.inputs).argmax(1) == digits.labels).float().mean() > 0.7
        hashes.append(code_of(model))
    # a changed setting is another model: finished runs of the old one do not count
    assert hashes[0] != hashes[1]
