"""Which of the bundled strategies are graphed, and that their graphs train alike."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench import suites
from kdbench.config import changed, read_suite
from kdbench.engine.graphs import WARM_UP
from kdbench.engine.learner import Learner
from kdbench.engine.lesson import Lesson
from kdbench.engine.teacher import TeacherStage, weights_hash
from kdbench.job import Job
from kdbench.models.taps import TappedModel
from kdbench.perform import Work, perform
from kdbench.plan import make_plan
from kdbench.recording import strategy_of

pytestmark = pytest.mark.slow

ALL = read_suite(Path(suites.__file__).parent / "digits-all.toml")

PLAIN = {
    "confident_pseudo_label": "reads batch.progress",
    "crd": "reads batch.generator",
    "ctkd": "reads batch.epoch",
    "dkd": "reads batch.epoch",
    "kdsvd": "waits",
    "mgd": "reads batch.generator",
    "noisy_student": "reads batch.generator",
    "reviewkd": "reads batch.epoch",
    "sharpened_pseudo_label": "reads batch.progress",
}
"""Every other strategy of digits-all that does not drive its own loop is graphed."""

WAITS = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
WAITS |= {"_linalg_eigh", "_linalg_svd", "linalg_qr", "_linalg_solve_ex", "bincount"}
WAITS |= {"_local_scalar_dense", "is_nonzero", "equal", "multinomial", "lift_fresh"}
"""Operations whose result, or whose input, makes a program wait for a GPU."""

CHECKED = "F.one_hot("
"""It looks at its input on a CPU only."""


class Waiting(TorchDispatchMode):
    """Notices operations for which a program on a GPU would wait."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        by_mask = name.removeprefix("_").startswith("index") and any(
            i is not None and i.dtype == torch.bool
            for i in args[1]
            if isinstance(args[1], (list, tuple))
        )
        if name in WAITS or by_mask:
            lines = [frame.line or "" for frame in traceback.extract_stack()]
            if not any(CHECKED in line for line in lines):
                self.found.add(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def work(host, tmp_path_factory):
    """The job of all lockstep strategies on the convnet pair, with its teacher."""
    folder = tmp_path_factory.mktemp("graphable")
    names = tuple(text.replace("_epochs=3", "_epochs=1") for text in ALL.strategies)
    changes = {"epochs": 1, "seeds": 1, "strategies": names, "pairs": ["digits-conv"]}
    plan = make_plan(changed(ALL, changes), host, {})
    for group in plan.todo:
        if not group.teachers:
            job = Job(group, folder, None, "cpu", 1)
            perform(job, host, lambda _: None, lambda: False)
    [group] = [g for g in plan.todo if g.teachers and not g.solo]
    made = Work(Job(group, folder, None, "cpu", 1), host, lambda _: None)
    made.prepare()
    return made


def learner_of(work, run, host, recorder=None):
    strategy = strategy_of(run, host)
    made = Learner(
        run,
        strategy,
        [host.model(name) for name in run.students],
        work.teachers,
        [work.teacher_ids.index(i) for i in run.teacher_runs[: strategy.teachers]],
        work.feed,
        work.dataset,
        recorder,
    )
    if recorder is not None:
        recorder.learner = made
    return made


def trained(work, learner, steps):
    """Some steps of each phase of this learner alone, on its own teacher stage."""
    taps = list(learner.strategy.taps)
    teachers = [TappedModel(s, m.eval(), taps) for s, m in work.teachers]
    stage = TeacherStage(teachers)
    obstacles = set()
    for start in sorted(learner._schedule._phases):
        learner.position = (start, 0)
        learner._enter_phase()
        for step in range(steps):
            learner.step(Lesson(work.feed, stage, start, step))
            assert learner.failure is None
        if learner._graphed:
            obstacles.add(learner._graphed.obstacle)
    return obstacles


def test_most_strategies_can_be_graphed(work, host, replaying):
    class Noticing(replaying):
        def apart(self, act):
            with Waiting() as waiting:
                result, _ = super().apart(act)
            return result, bool(waiting.found)

    plain = {}
    for run in work.job.group.runs:
        obstacles = trained(work, learner_of(work, run, host, Noticing()), WARM_UP)
        if obstacles != {""}:
            plain[run.strategy] = max(obstacles)
    assert len(work.job.group.runs) - len(plain) >= 39
    assert set(plain) == set(PLAIN)
    assert all(PLAIN[name] in plain[name] for name in PLAIN)


def test_every_strategy_that_is_graphed_trains_alike(work, host, replaying):
    """Bit for bit, in each of its phases."""
    for run in work.job.group.runs:
        recorder = replaying()
        graphed, plain = (learner_of(work, run, host, x) for x in (recorder, None))
        for learner in (graphed, plain):
            trained(work, learner, WARM_UP + 3)
        phases = len(graphed._schedule._phases)
        expected = 0 if PLAIN.get(run.strategy, "waits") != "waits" else 3 * phases
        assert recorder.did["replay"] == expected, run.label
        assert weights_hash(graphed.modules) == weights_hash(plain.modules), run.label
        if graphed.adapters is not None:
            own, its = graphed.adapters.state_dict(), plain.adapters.state_dict()
            assert all(torch.equal(own[k], its[k]) for k in its), run.label


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x[0] > 0),
        lambda x: x.index_put_((x > 0,), x[:1].expand(3)),
        lambda x: torch.tensor([1.0]) + x,
        lambda x: torch.linalg.eigh(x.outer(x)),
    ],
)
def test_waiting_is_noticed(act):
    with Waiting() as waiting:
        act(torch.tensor([1.0, -1.0, 2.0, 3.0]))
    assert waiting.found


def test_what_does_not_wait_is_not_noticed():
    values, places = torch.randn(4), torch.tensor([0, 2])
    with Waiting() as waiting:
        values[places] = 2 * values[places].relu()
        values.masked_fill(values > 0, 1.0).softmax(0)
        torch.nn.functional.cross_entropy(values[None], places[:1])
    assert not waiting.found
