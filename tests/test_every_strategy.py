"""What holds for every strategy of the bundled plugins, through the engine."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench import suites
from kdbench.api import Strategy
from kdbench.catalogue import page
from kdbench.config import changed, read_suite
from kdbench.engine import Stopped
from kdbench.execute import make_jobs
from kdbench.perform import perform
from kdbench.plan import make_plan
from kdbench.session import Session
from kdbench.testing import Given, no_global_randomness

pytestmark = pytest.mark.xdist_group("every")  # what is trained is so in one process

ALL = read_suite(Path(suites.__file__).parent / "digits-all.toml")
ELSEWHERE = {"teacher_features", "patient_kd", "tinybert_attention"}
"""Strategies whose students are not those of digits."""


NAMES = tuple(text.replace("_epochs=2", "_epochs=1") for text in ALL.strategies)


def suite(**changes):
    return changed(ALL, {"epochs": 2, "seeds": 1, "strategies": NAMES, **changes})


@pytest.fixture(scope="module")
def run_all(host, helpers):
    """Train every strategy in this process: records by cell."""

    def run(out, **changes):
        session = Session(host, suite(**changes), helpers["options"](out))
        session.train()
        assert session.failed == []
        return helpers["by_cell"](out / "digits-all")

    return run


@pytest.fixture(scope="module")
def watched(host):
    """What strategies do wrong with global generators, and which have been watched."""
    touched, seen = {}, set()

    def watch(patch, kind, method, but=()):
        real = getattr(kind, method)

        def guarded(self, *args):
            seen.add((method, self.name))
            try:
                with no_global_randomness(but):
                    return real(self, *args)
            except AssertionError as error:
                touched[method, self.name] = str(error)
                raise

        patch.setattr(kind, method, guarded)

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, Strategy, "terms")
        for offer in host.all("strategies"):
            if "adapters" in vars(offer.thing):
                watch(patch, offer.thing, "adapters", but=["torch"])
        yield touched, seen


@pytest.fixture(scope="module")
def together(run_all, tmp_path_factory, watched):
    with no_global_randomness(["torch"]):  # also strategies that drive their own loop
        return run_all(tmp_path_factory.mktemp("together"))


def test_the_suite_holds_every_strategy(host):
    there = {text.partition("[")[0] for text in ALL.strategies}
    assert there | ELSEWHERE == set(host.names("strategies"))
    assert len(ALL.strategies) >= 45


@pytest.mark.slow
def test_only_what_cannot_run_is_skipped(together):
    """Vectors have no positions; flows need stages of the same width."""
    skipped = {c: r.reason for c, r in together.items() if r.status == "skipped"}
    of = {cell.split("/")[1].split("[")[0] for cell in skipped if "mlp" in cell}
    assert of == {"at", "cat_kd", "fsp", "kdsvd", "nst"}
    for cell, reason in skipped.items():
        words = ("no map (C, H, W)", "has no positions", "equally wide")
        assert any(part in reason for part in words), (cell, reason)
    assert [cell for cell in skipped if "conv" in cell] == [
        "digits-conv/fsp[fsp_epochs=1]/0"
    ]


@pytest.mark.slow
def test_no_strategy_uses_a_global_generator(host, together, watched):
    """In no step of any phase, on either pair, nor where adapters are built."""
    touched, seen = watched
    assert touched == {}
    ran = {r.run.strategy for r in together.values() if r.status == "finished"}
    kinds = [o.thing for o in host.all("strategies") if o.thing.name in ran]
    assert len(kinds) > 45
    stepping = {("terms", k.name) for k in kinds if not k.drives_itself()}
    building = {("adapters", k.name) for k in kinds if "adapters" in vars(k)}
    assert seen == stepping | building


BAD = {
    "torch": lambda: torch.rand(1),
    "random": random.random,
    "numpy": lambda: np.random.rand(),  # noqa: NPY002 - that is what is bad
    "sets torch": lambda: torch.manual_seed(5),
    "sets random": lambda: random.seed(5),
    "sets numpy": lambda: np.random.seed(5),  # noqa: NPY002
}


@pytest.mark.parametrize("how", BAD)
def test_a_strategy_that_uses_a_global_generator_is_caught(how, watched):
    class Bad(Strategy):
        name = "bad"

        def loss(self, batch):
            BAD[how]()
            return {}

    batch = Given(torch.Generator().manual_seed(0)).batch()
    with pytest.raises(AssertionError, match=f"was used: {how.split()[-1]}"):
        Bad().terms(batch)
    assert watched[0].pop(("terms", "bad"))
    watched[1].discard(("terms", "bad"))


def test_the_batchs_own_generator_is_no_global_one():
    with no_global_randomness():
        torch.rand(3, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_any_company_in_any_order_gives_the_same_bits(
    together, host, helpers, tmp_path
):
    """Groups are cut into parts of any size, and who comes first is drawn, too."""
    dice = random.Random(0)  # noqa: S311 - not for secrets
    plan = make_plan(suite(pairs=["digits-conv"]), host, {})
    trained = 0
    for job in make_jobs(plan, host, {"digits": 1347}, tmp_path, None, "cpu", 60.0):
        runs = list(job.group.runs)
        dice.shuffle(runs)
        runs = runs[: max(1, round(len(runs) * 0.7))] if job.group.teachers else runs
        trained += len(runs)
        while runs:
            size = dice.randint(1, len(runs))
            group = dataclasses.replace(job.group, runs=tuple(runs[:size]))
            part = dataclasses.replace(job, group=group)
            perform(part, host, lambda _: None, lambda: False)
            runs = runs[size:]
    records = helpers["by_cell"](tmp_path)
    assert len(records) == trained > 30
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](together[cell]), cell


@pytest.mark.slow
def test_half_the_company_gives_the_same_bits(together, run_all, helpers, tmp_path):
    """Every strategy, in other company: adding or leaving out others changes none."""
    for k in range(2):
        names = ["scratch", "kd", *NAMES[k::2]]
        for cell, record in run_all(tmp_path / str(k), strategies=names).items():
            assert helpers["bits"](record) == helpers["bits"](together[cell]), cell


def stopped(job, host):
    """Whether the job, asked to stop after some steps, did so before its end."""
    calls = itertools.count(1)
    try:
        perform(job, host, lambda _: None, lambda: next(calls) > 400)
    except Stopped:
        return True
    return False


@pytest.mark.slow
def test_stopped_again_and_again_gives_the_same_bits(together, host, helpers, tmp_path):
    """Everything that a strategy keeps is in the checkpoint: also in early phases."""
    plan = make_plan(suite(pairs=["digits-conv"]), host, {})
    jobs = make_jobs(plan, host, {"digits": 1347}, tmp_path, None, "cpu", 60.0)
    for job in jobs:
        while stopped(job, host):
            pass
    records = helpers["by_cell"](tmp_path)
    assert len(records) > 45
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](together[cell]), cell


def test_adapters_are_trained_and_kept(host, learners):
    """Every parameter that asks for a gradient is in an optimiser; all are saved."""
    adapted = 0
    for learner in learners:
        if learner.adapters is None:
            continue
        adapted += 1
        held = {id(p) for g in learner.optimiser.param_groups for p in g["params"]}
        for name, parameter in learner.adapters.named_parameters():
            assert (id(parameter) in held) == parameter.requires_grad, name
        saved = set(learner.state()["adapters"])
        names = {n for n, _ in learner.adapters.named_parameters()}
        assert names | {n for n, _ in learner.adapters.named_buffers()} == saved
    assert adapted >= 16


@pytest.fixture(scope="module")
def learners(host, tmp_path_factory):
    """Every lockstep strategy, built on the convnet pair by the engine."""
    from kdbench.job import Job
    from kdbench.perform import Work

    folder = tmp_path_factory.mktemp("learners")
    plan = make_plan(suite(pairs=["digits-conv"]), host, {})
    for group in plan.todo:
        job = Job(group, folder, None, "cpu", 1)
        if not group.teachers:
            perform(job, host, lambda _: None, lambda: False)
    torch.manual_seed(0)
    [group] = [g for g in plan.todo if g.teachers and not g.solo]
    work = Work(Job(group, folder, None, "cpu", 1), host, lambda _: None)
    work.prepare()
    return [work.fresh(run) for run in group.runs]


def test_modules_are_short(host):
    """One short module per method: half of them are below 60 lines."""
    files = {inspect.getfile(o.thing) for o in host.all("strategies")}
    lengths = sorted(len(Path(file).read_text().splitlines()) for file in files)
    assert lengths[len(lengths) // 2] < 60


def test_the_page_of_strategies_is_current(host):
    """docs/strategies.md is what `make docs` writes."""
    written = Path(__file__).parents[1] / "docs" / "strategies.md"
    assert written.read_text() == page(host)


def test_every_strategy_is_made_again_from_its_values(host):
    for offer in host.all("strategies"):
        strategy: type[Strategy] = offer.thing
        assert strategy.configured({}) == strategy()
        assert strategy.configured(strategy().values()) == strategy()
