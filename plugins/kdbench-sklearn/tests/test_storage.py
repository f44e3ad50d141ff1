"""Somebody else's weights cannot run code, and damaged ones are refused."""

import functools
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import skops.io
import torch
from kdbench_sklearn.storage import THE_DATE, canonical, to_bytes
from kdbench_sklearn.zoo import models
from sklearn.neighbors import NearestCentroid

from kdbench import UserError

MODELS = {model.name: model for model in models()}


class Stranger:
    """A type that nobody vouches for."""

    made = 0

    def __setstate__(self, state):
        type(self).made += 1


def as_state(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def state_of(estimators, **changes):
    known = {
        "way": "probabilities",
        "estimators": estimators,
        "classes": np.arange(0),
        "width": 64,
    }
    return as_state(skops.io.dumps({**known, **changes}))


@pytest.fixture
def tree(fitted):
    """A fitted decision tree to tamper with."""
    return fitted(MODELS["decision_tree"], "soft")


def test_a_type_of_somebody_else_is_refused(build):
    with pytest.raises(UserError, match=r"not trusted.*Stranger"):
        build(MODELS["decision_tree"]).set_extra_state(state_of([Stranger()]))
    assert Stranger.made == 0


def test_a_function_of_somebody_else_is_not_called(build, tmp_path):
    target = tmp_path / "made"
    call = functools.partial(os.mkdir, str(target))
    with pytest.raises(UserError, match=r"not trusted.*mkdir"):
        build(MODELS["decision_tree"]).set_extra_state(state_of([call]))
    assert not target.exists()


def test_pickles_are_not_read(build, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(UserError, match="cannot be read"):
        build(MODELS["knn"]).set_extra_state(as_state(pickle.dumps(Harm())))
    assert not (tmp_path / "made").exists()


def test_another_estimator_is_refused(build, digits, tree):
    with pytest.raises(UserError, match="another estimator than 'knn'"):
        build(MODELS["knn"]).set_extra_state(tree.get_extra_state())
    [fitted] = tree.learned.estimators
    for changes in ({"way": "guess"}, {"classes": np.array([10])}, {"width": "64"}):
        with pytest.raises(UserError, match="another estimator"):
            tree.set_extra_state(state_of([fitted], **changes))
    with pytest.raises(UserError, match="not those of a model"):
        tree.set_extra_state(as_state(skops.io.dumps([fitted])))


@pytest.mark.parametrize(
    ("field", "value"), [("left_child", 10**6), ("right_child", 0), ("feature", 64)]
)
def test_a_tree_that_points_outside_itself_is_refused(tree, field, value):
    [fitted] = tree.learned.estimators
    state = fitted.tree_.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    fitted.tree_.__setstate__(state)
    with pytest.raises(UserError, match="points outside itself"):
        tree.set_extra_state(state_of([fitted]))


@pytest.mark.parametrize("field", ["left", "right", "feature_idx", "is_categorical"])
def test_a_boosted_tree_that_points_outside_itself_is_refused(build, fitted, field):
    [grown] = fitted(MODELS["gradient_boosting"]).learned.estimators
    grown._predictors[3][2].nodes[field][0] = 200
    state = state_of([grown], way="labels", classes=np.arange(10))
    with pytest.raises(UserError, match="points outside itself"):
        build(MODELS["gradient_boosting"]).set_extra_state(state)


def test_a_forest_is_checked_tree_by_tree(build, fitted):
    [grown] = fitted(MODELS["random_forest"]).learned.estimators
    tree = grown.estimators_[-1].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"]["feature"][0] = 99
    tree.__setstate__(state)
    with pytest.raises(UserError, match="points outside itself"):
        build(MODELS["random_forest"]).set_extra_state(state_of([grown]))


def test_damaged_bytes(tree):
    state = tree.get_extra_state().clone()
    state[len(state) // 2 :] = 0
    with pytest.raises(UserError, match="cannot be read"):
        tree.set_extra_state(state)


def test_what_cannot_be_read_again_is_refused_when_stored():
    with pytest.raises(UserError, match=r"nobody vouches for.*Stranger.*trusted="):
        to_bytes({"x": Stranger()}, "mine", ())


def test_canonical_bytes_hold_no_address_and_no_date():
    thing = {"a": np.arange(3.0), "b": NearestCentroid(), "c": [1.5, "x", None]}
    thing["again"] = thing["a"]
    first, second = (canonical(skops.io.dumps(thing)) for _ in range(2))
    copied = {**thing, "a": thing["a"].copy()}
    copied["again"] = copied["a"]
    assert first == second == canonical(skops.io.dumps(copied))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["schema.json", "0.npy"]
        assert {entry.date_time for entry in archive.infolist()} == {THE_DATE}
    back = skops.io.loads(first)
    assert back["again"] is back["a"]
    np.testing.assert_array_equal(back["a"], thing["a"])
