"""What one member of a stack does wrong, or needs, is its own affair."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from kdbench.data.digits import load
from kdbench.engine.faults import OutOfMemory
from kdbench.engine.learner import SPOILED

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from stacking import (
    NORMED,
    PLAIN,
    RECIPE,
    BadGradient,
    Group,
    Infinite,
    InPlace,
    Nan,
    NeedsItsGraph,
    Plain,
    Raises,
    WritesInputs,
    WritesToItself,
    assert_alike,
)

MISTAKES = {
    Raises: "KeyError: 'lost it'",
    Nan: "not finite in epoch 1",
    Infinite: "not finite in epoch 1",
    WritesInputs: SPOILED,
    BadGradient: "in epoch 1, step 1",
}


@pytest.mark.parametrize("student", [PLAIN, NORMED], ids=["plain", "batch norm"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda c: c.__name__)
def test_a_failing_member_takes_nobody_along(tmp_path, mistake, student):
    group = Group(student=student)
    members = [group.learner(c(), c.__name__) for c in (Plain, mistake, InPlace)]
    group.train(*members, folder=tmp_path)
    assert group.dropped == [members[1]]
    assert MISTAKES[mistake] in (members[1].failure or "")
    without = Group(student=student)
    others = [without.learner(c(), c.__name__) for c in (Plain, InPlace)]
    without.train(*others, folder=tmp_path)
    for one, two in zip((members[0], members[2]), others, strict=True):
        assert_alike(one, two)
    assert group.told.count("Plain") == 2


def test_a_member_that_writes_to_itself_harms_nobody(tmp_path):
    group = Group()
    members = [group.learner(c()) for c in (Plain, WritesToItself, Plain)]
    group.train(*members, folder=tmp_path)
    expected = Group()
    known = [expected.learner(Plain(), str(k)) for k in range(2)]
    expected.train(*known, folder=tmp_path)
    for member in members:  # its loss does not use what it wrote to
        assert_alike(member, known[0])


def test_who_needs_its_own_graph_goes_alone_and_still_learns(tmp_path):
    group = Group(student=NORMED)
    members = [group.learner(c()) for c in (Plain, NeedsItsGraph, InPlace)]
    stepped = []
    own = members[1].step
    members[1].step = lambda lesson: (stepped.append(lesson.position), own(lesson))
    group.train(*members, folder=tmp_path)
    assert stepped == [(e, s) for e in range(2) for s in range(group.feed.steps)]
    counted = members[1].student.state_dict()["layers.0.1.num_batches_tracked"]
    assert counted == len(stepped)


def test_a_batch_of_one_fails_those_that_it_would_fail_alone(tmp_path):
    items = len(load(None, False).train.targets)
    size = next(b for b in range(100, items) if items % b == 1)
    recipe = RECIPE.model_copy(update={"batch_size": size, "drop_last": False})
    group = Group(recipe, student=NORMED)
    members = [group.learner(Plain(), str(k)) for k in range(2)]
    group.train(*members, folder=tmp_path)
    assert all("Expected more than 1 value" in (m.failure or "") for m in members)


def test_memory_that_runs_out_is_the_machines_fault(tmp_path):
    class Hungry(Plain):
        def loss(self, batch):
            raise torch.OutOfMemoryError("out of memory")

    group = Group()
    members = [group.learner(c()) for c in (Plain, Hungry)]
    with pytest.raises(OutOfMemory):
        group.train(*members, folder=tmp_path)
    assert not any(m.whole for m in members)
    assert all(m.failure is None for m in members)
