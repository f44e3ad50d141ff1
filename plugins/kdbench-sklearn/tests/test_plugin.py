"""The plugin offers what it promises; its suite names only what there is."""

import inspect
import pickle
import re
import subprocess
import sys

import kdbench_sklearn
import pytest
from kdbench_sklearn import TeacherFeatures

from kdbench.config import read_suite
from kdbench.selections import parse_selection


def names(things):
    return {thing.name for thing in things}


def test_names():
    assert names(kdbench_sklearn.kdbench_models()) == {
        "linear_svm",
        "kernel_svm",
        "logistic_regression",
        "decision_tree",
        "random_forest",
        "extra_trees",
        "gradient_boosting",
        "knn",
    }
    assert names(kdbench_sklearn.kdbench_strategies()) == {"teacher_features"}
    assert names(kdbench_sklearn.kdbench_suites()) == {"classic-ml"}


def test_pairs_and_suite_name_what_the_host_knows(host):
    known = host.names("models")
    for pair in kdbench_sklearn.kdbench_pairs():
        assert {*pair.teachers, *pair.students} <= set(known)
    [file] = kdbench_sklearn.kdbench_suites()
    used = set()
    for part in read_suite(file.path).parts:
        assert set(part.datasets) <= set(host.names("datasets"))
        wanted = {parse_selection(text)[0].name for text in part.strategies}
        assert {"scratch", "kd"} <= wanted <= set(host.names("strategies"))
        assert not part.recipe.drop_last  # every item counts for a single pass
        used |= set(part.pairs)
    assert used == names(kdbench_sklearn.kdbench_pairs())


@pytest.mark.parametrize(
    "model", kdbench_sklearn.kdbench_models(), ids=lambda m: m.name
)
def test_a_model_learns_without_gradients(model, build):
    assert model.learner == "fitted"
    assert model.probabilities is not model.name.endswith("svm")
    assert not list(build(model).parameters())


def test_the_strategy_explains_its_hyper_parameters():
    strategy = TeacherFeatures(kd_weight=0.5)
    assert pickle.loads(pickle.dumps(strategy)) == strategy  # noqa: S301 (our own)
    source = inspect.getsource(TeacherFeatures)
    for name in TeacherFeatures.parameters():
        assert re.search(rf"^    {name}: \w+ = \S+  # .*;.+", source, re.M)


def test_listing_the_plugin_does_not_load_scikit_learn():
    code = (
        "import sys, kdbench_sklearn as k; k.kdbench_models(), k.kdbench_pairs();"
        "assert not {'sklearn', 'skops'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
