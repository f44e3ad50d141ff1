"""How an estimator learns from soft targets, and how it answers.

As numbers: a regressor with several outputs is fitted to the probabilities themselves.
For a tree and one-hot targets its squared error is the Gini impurity divided by the
number of classes, so that it grows as the classifier does (Breiman et al. 1984).

By weighted labels: an item becomes one row for each class, weighted by the class's
probability. For a loss that is a sum over rows, that is the expected loss under the
target; for cross-entropy, the cross-entropy to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdbench_sklearn.kind import Kind

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

SMALLEST = 0.01
"""Classes below this share of an item's likeliest are dropped from its rows."""
FLOOR = 1e-6
"""Probabilities are clipped to this before the logarithm."""
TOLERANCE = 1e-3
"""How far a probability distribution's sum may be from 1."""

Way = Literal["probabilities", "labels", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Fitted estimators: one, or one for each of several numbers.

    `classes` are those that one fitted on labels has seen: its own are positions in
    this. `width` is the number of inputs.
    """

    way: Way
    estimators: list[Any]
    classes: Ints
    width: int


def learn(kind: Kind, inputs: Floats, targets: Floats, random_state: int) -> Learned:
    """Fit (N, D) inputs to (N, C) probabilities or (N, K) numbers.

    Raises UserError where the kind of estimator cannot learn such targets.
    """
    if not are_probabilities(targets):
        fitted = _fit_numbers(kind, inputs, targets, random_state)
        return _learned("numbers", fitted, inputs)
    made = kind.make(random_state)
    if kind.regresses(made):
        made.fit(inputs, targets)
        return _learned("probabilities", [made], inputs)
    item, label, weight = weighted_rows(targets)
    classes, known = np.unique(label, return_inverse=True)  # some want 0, 1, ... k - 1
    if len(classes) == 1:  # nothing to tell apart, which most estimators refuse
        from sklearn.dummy import DummyClassifier

        made = DummyClassifier(strategy="prior")
        made.fit(inputs[:1], known[:1])
    elif weight is None:
        made.fit(inputs[item], known)
    else:
        kind.weighted(made).fit(inputs[item], known, sample_weight=weight)
    return _learned("labels", [made], inputs, classes)


def _learned(
    way: Way, estimators: list[Any], inputs: Floats, classes: Any = ()
) -> Learned:
    known = np.asarray(classes, dtype=np.int64)
    return Learned(way=way, estimators=estimators, classes=known, width=inputs.shape[1])


def are_probabilities(targets: Floats) -> bool:
    """Whether every row of (N, C) is a distribution over two classes or more.

    Standardised numbers never are: their columns, and so their rows' sums, are 0 in
    the mean.
    """
    sums = targets.sum(1)
    return bool(
        targets.shape[1] > 1
        and targets.min() >= -TOLERANCE
        and abs(sums - 1).max() <= TOLERANCE
    )


def weighted_rows(targets: Floats) -> tuple[Ints, Ints, Floats | None]:
    """(N, C) probabilities -> item, class and weight of each row, (R,) each.

    An item's weights sum to 1. Where each item has one class only, these are plain
    labels and the weights None.
    """
    kept = targets >= SMALLEST * targets.max(1, keepdims=True)
    item, label = np.nonzero(kept)
    if len(item) == len(targets):
        return item, label, None
    weight = targets[item, label]
    return item, label, weight / np.bincount(item, weight)[item]


def _fit_numbers(
    kind: Kind, inputs: Floats, targets: Floats, random_state: int
) -> list[Any]:
    """One regressor where it takes (N, K) targets, else one for each of the K."""
    made = kind.for_numbers(random_state)
    if targets.shape[1] > 1 and _takes_several(made):
        made.fit(inputs, targets)
        return [made]
    each = [made, *(kind.for_numbers(random_state) for _ in targets.T[1:])]
    for one, column in zip(each, targets.T, strict=True):
        one.fit(inputs, column)
    return each


def _takes_several(made: Any) -> bool:
    from sklearn.base import BaseEstimator
    from sklearn.utils import get_tags

    if not isinstance(made, BaseEstimator):
        return False
    return bool(get_tags(made).target_tags.multi_output)


def answer(learned: Learned, inputs: Floats, outputs: int) -> Floats:
    """(B, D) inputs -> (B, outputs): log probabilities, decision values or numbers."""
    if learned.way == "numbers":
        columns = [estimator.predict(inputs) for estimator in learned.estimators]
        return np.asarray(np.column_stack(columns))
    [estimator] = learned.estimators
    if learned.way == "probabilities":
        found = np.clip(estimator.predict(inputs), 0, None)
        total = np.clip(found.sum(1, keepdims=True), FLOOR, None)
        return np.asarray(np.log(np.clip(found / total, FLOOR, None)))
    if hasattr(estimator, "predict_proba"):
        found = _spread(estimator.predict_proba(inputs), learned.classes, outputs, 0.0)
        return np.asarray(np.log(np.clip(found, FLOOR, None)))
    return _decisions(estimator, inputs, learned.classes, outputs)


def _decisions(estimator: Any, inputs: Floats, classes: Ints, outputs: int) -> Floats:
    """Decision values, an unseen class below all others; votes where there are none."""
    if hasattr(estimator, "decision_function"):
        found = np.asarray(estimator.decision_function(inputs))
        if found.ndim == 1:  # two classes: positive means the second
            found = np.column_stack([-found, found])
    else:
        votes = np.asarray(estimator.predict(inputs))
        found = (votes[:, None] == np.arange(len(classes))).astype(np.float64)
    return _spread(found, classes, outputs, found.min(1, keepdims=True) - 1)


def _spread(found: Any, classes: Ints, outputs: int, empty: Any) -> Floats:
    """(B, known classes) -> (B, all classes)."""
    every = np.empty((len(found), outputs))
    every[:] = empty
    every[:, classes] = found
    return every
