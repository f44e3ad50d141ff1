"""The estimators that this plugin offers, and their settings.

All inputs are as the engine normalises them. Trees are limited in depth and forests in
number so that MNIST (60,000 x 784) takes seconds to fit on one core.
"""

from __future__ import annotations

from typing import Any

from kdbench import Model
from kdbench_sklearn.module import estimator

SVM_EPOCHS = 5
"""Passes of stochastic gradient descent: an exact solver of the same problem takes two
minutes on MNIST, these about fifteen seconds, for the same accuracy."""
DEPTH = 10
FOREST = 50
"""Trees of a forest."""
ROUNDS = 50
"""Of boosting: each adds one tree for each class."""
NEIGHBOURS = 5


def linear_svm(random_state: int) -> Any:
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(
        loss="hinge",
        alpha=1e-4,
        average=True,
        max_iter=SVM_EPOCHS,
        tol=None,
        random_state=random_state,
    )


def linear_svr(random_state: int) -> Any:
    from sklearn.linear_model import SGDRegressor

    return SGDRegressor(
        loss="epsilon_insensitive",
        epsilon=0.1,  # standard deviations of the target
        average=True,
        max_iter=SVM_EPOCHS,
        tol=None,
        random_state=random_state,
    )


def kernel_svm(random_state: int) -> Any:
    from sklearn.svm import SVC

    return SVC(break_ties=True, random_state=random_state)


def kernel_svr(_random_state: int) -> Any:
    from sklearn.svm import SVR

    return SVR()


def logistic_regression(random_state: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000, random_state=random_state)


def ridge(random_state: int) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(random_state=random_state)


def decision_tree(random_state: int) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_depth=DEPTH, random_state=random_state)


def random_forest(random_state: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(
        FOREST, max_features="sqrt", min_samples_leaf=2, random_state=random_state
    )


def extra_trees(random_state: int) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(
        FOREST, max_features="sqrt", min_samples_leaf=2, random_state=random_state
    )


def gradient_boosting(random_state: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=ROUNDS, early_stopping=False, random_state=random_state
    )


def gradient_boosting_of_numbers(random_state: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=ROUNDS, early_stopping=False, random_state=random_state
    )


def knn(_random_state: int) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(NEIGHBOURS, algorithm="brute")


def models() -> list[Model]:
    """Support vector machines, linear models, trees and neighbours."""
    return [
        estimator(
            "linear_svm",
            f"linear support vector machine, {SVM_EPOCHS} passes of averaged SGD",
            linear_svm,
            regressor=linear_svr,
            probabilities=False,
        ),
        estimator(
            "kernel_svm",
            "support vector machine with a Gaussian kernel; for thousands of items",
            kernel_svm,
            regressor=kernel_svr,
            probabilities=False,
        ),
        estimator(
            "logistic_regression",
            "multinomial logistic regression (numbers: ridge regression)",
            logistic_regression,
            regressor=ridge,
        ),
        estimator(
            "decision_tree", f"one tree of at most {DEPTH} levels", decision_tree
        ),
        estimator("random_forest", f"random forest of {FOREST} trees", random_forest),
        estimator("extra_trees", f"{FOREST} extremely randomised trees", extra_trees),
        estimator(
            "gradient_boosting",
            f"gradient boosting on histograms, {ROUNDS} rounds",
            gradient_boosting,
            regressor=gradient_boosting_of_numbers,
        ),
        estimator("knn", f"{NEIGHBOURS} nearest neighbours", knn),
    ]
