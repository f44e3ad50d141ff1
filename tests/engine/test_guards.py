"""Strategies that change the process, the teacher or the time: they fail alone."""

from __future__ import annotations

import os
import random
from pathlib import Path
from timeit import timeit
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdbench.api import Measure, Outputs, hookimpl
from kdbench.config import Suite
from kdbench.conformance.toys import Toys
from kdbench.engine.showing import Seen
from kdbench.engine.solo import LEAST_PASSES, TRAININGS
from kdbench.measure import measure_all
from kdbench.plugins import Host
from kdbench.randomness import global_generators, seeded_back
from kdbench.session import Session
from kdbench.settings import Meddled, kept, put_back, settings
from kdbench.tasks import Task

pytestmark = pytest.mark.slow

PLUGIN = """
import sys
from dataclasses import dataclass
import torch
import torch.nn.functional as F
from torch import nn
from kdbench import *

SETTINGS = {
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "grad": lambda: torch.set_grad_enabled(False),
    "threads": lambda: torch.set_num_threads(3),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "precision": lambda: setattr(
        torch.backends.mkldnn.matmul, "fp32_precision", "bf16"
    ),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "denormals": lambda: torch.set_flush_denormal(True),
    "benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
}

def spoil(classifier, how):
    if how == "write":
        with torch.no_grad():
            classifier.weight *= 0.9
    if how == "data": classifier.weight.data.mul_(0.9)
    if how == "gradient": classifier.requires_grad_()
    if how == "mode": classifier.train()

@dataclass(frozen=True, kw_only=True)
class Mischief(Strategy):
    '''Cross-entropy, and a mischief somewhere.'''
    name = "mischief"
    what: str = ""  # text; which
    where: str = "loss"  # text; where
    def supports(self, student, teacher):
        if self.where == "supports": self.act()
    def adapters(self, student, teacher):
        if self.where == "adapters": self.act()
        if self.where == "targets": student.targets.zero_()
    def deployed(self, students, adapters):
        if self.where == "deployed": self.act()
        if self.where == "evaluation": return Deployed(students[0], self.act)
        return students[0]
    def loss(self, batch):
        if self.where == "loss" and batch.epoch >= 1: self.act()
        if self.where == "classifier":
            spoil(batch.teacher.classifier, self.what)
            batch.teacher.once(doubled)
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}
    def act(self):
        if self.what == "exit": sys.exit("enough")
        SETTINGS[self.what]()

class Deployed(nn.Module):
    def __init__(self, model, act):
        super().__init__()
        self.model, self.act = model, act
    def forward(self, inputs):
        self.act()
        return self.model(inputs)

def doubled(teacher):
    return teacher.classifier.weight * 2

@dataclass(frozen=True, kw_only=True)
class Reader(Strategy):
    '''Reads the teacher's classifier, itself and by what is made once.'''
    name = "reader"
    def loss(self, batch):
        classifier = batch.teacher.classifier
        assert not classifier._forward_hooks and not classifier._forward_pre_hooks
        read = classifier.weight.sum() + batch.teacher.once(doubled).sum()
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": ce + 0.01 * read}

@dataclass(frozen=True, kw_only=True)
class Loop(Strategy):
    '''Drives its own loop.'''
    name = "loop"
    what: str = ""  # text; which
    where: str = "start"  # text; where
    passes: int = 1  # >= 1; over the training set, in an epoch
    def train(self, context):
        student = context.students[0]
        optimiser = context.optimiser(student.parameters())
        if self.where == "start": self.act()
        while self.where == "batches":
            for batch in context.batches(): pass
        while self.where == "first":
            next(context.batches())
        while self.where == "items":
            for batch in context.items(): pass
        for _ in context.epochs():
            for _ in range(self.passes):
                for batch in context.batches():
                    loss = F.cross_entropy(student(batch.inputs), batch.targets)
                    optimiser.zero_grad(); loss.backward(); optimiser.step()
            if self.where == "epoch": self.act()
        while self.where == "epochs":
            for _ in context.epochs(): pass
        return student
    def act(self):
        if self.what: SETTINGS[self.what]()

@hookimpl
def kdbench_strategies(): return [Mischief, Reader, Loop]
"""

NAMES = {
    "dtype": "torch's default dtype",
    "device": "torch's default device",
    "grad": "torch's grad mode",
    "threads": "torch's number of threads",
    "deterministic": "torch's deterministic algorithms",
    "precision": "torch's float32 matmul precision",
    "medium": "torch's float32 matmul precision",
    "autocast": "torch's autocast",
    "anomaly": "torch's anomaly detection",
    "denormals": "torch's flushing of denormals",
    "benchmark": "cuDNN's benchmark mode",
}
OTHERS = ("kd", "reader", "scratch", "srrl")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "mischief.py"
    path.write_text(PLUGIN)
    return Host(files=[path], modules=[Toys()])


@pytest.fixture(scope="module")
def run(guarded, helpers, tmp_path_factory):
    def run(*strategies, pair="toy-convnets", dataset="toy-images", **recipe):
        """Trained side by side: the records by label."""
        out = tmp_path_factory.mktemp("out")
        suite = Suite(
            name="guards",
            datasets=(dataset,),
            pairs=(pair,),
            strategies=strategies,
            seeds=1,
            recipe={"epochs": 2, "batch_size": 32, "lr": 0.05, **recipe},
        )
        before = settings()
        Session(guarded, suite, helpers["options"](out)).train()
        assert set(put_back(before)) <= {"torch's number of threads"}  # the session's
        return {r.run.label: r for r in helpers["by_cell"](out / "guards").values()}

    return run


@pytest.fixture(scope="module")
def alone(run, helpers):
    records = run(*OTHERS)
    return {label: helpers["bits"](records[label]) for label in OTHERS}


def test_a_setting_fails_who_changes_it(run, alone, helpers):
    texts = {what: f"mischief[what={what}]" for what in NAMES}
    first, *rest = texts.values()
    records = run(first, *OTHERS[:2], *rest, *OTHERS[2:])
    for label, bits in alone.items():
        assert helpers["bits"](records[label]) == bits
    for what, text in texts.items():
        assert records[text].status == "failed"
        told = f"changed {NAMES[what]}, for the whole process in epoch 2, step 1"
        assert records[text].reason.endswith(told)
        # without gradients the engine has an error of its own, too
        assert what == "grad" or records[text].reason == told


def test_wherever_it_is_changed(run, alone, helpers):
    ends = {
        "supports": "supports() changed torch's default dtype, for the whole process",
        "adapters": "changed torch's default dtype, for the whole process before "
        "training",
        "deployed": "changed torch's default dtype, for the whole process before "
        "training",
        "evaluation": "changed torch's default dtype, for the whole process after "
        "epoch 1",
    }
    texts = {where: f"mischief[what=dtype,where={where}]" for where in ends}
    first, *rest = texts.values()
    records = run(first, *OTHERS[:2], *rest, *OTHERS[2:])
    for label, bits in alone.items():
        assert helpers["bits"](records[label]) == bits
    assert {where: records[text].reason for where, text in texts.items()} == ends


def test_one_who_exits_fails_alone(run, alone, helpers):
    places = ("supports", "adapters", "loss", "evaluation")
    texts = {where: f"mischief[what=exit,where={where}]" for where in places}
    records = run(*texts.values(), *OTHERS)
    for label, bits in alone.items():
        assert helpers["bits"](records[label]) == bits
    for where, text in texts.items():
        record = records[text.replace(",where=loss", "")]
        assert record.status == ("skipped" if where == "supports" else "failed")
        assert "SystemExit: enough" in record.reason


def test_a_teachers_classifier_is_everyones_own(run, alone, helpers):
    """What one does to it reaches no other, and fails the one at the epoch's end."""
    whats = ("write", "data", "gradient", "mode")
    texts = [f"mischief[what={what},where=classifier]" for what in whats]
    records = run(*texts[:2], *OTHERS, *texts[2:])
    for label, bits in alone.items():
        assert helpers["bits"](records[label]) == bits
    for text in texts:
        assert records[text].status == "failed"
        assert "a teacher" in records[text].reason


def test_a_learners_classifier_taps_nothing():
    """The teacher's own is tapped by hooks, which a copy would call too."""
    linear = torch.nn.Linear(2, 3)
    linear.register_forward_pre_hook(lambda *_: 1 / 0)
    linear.register_forward_hook(lambda *_: 1 / 0)
    logits = torch.zeros(1, 3)
    shown = Seen({0: frozenset()})(("", 0), Outputs(logits, classifier=linear))
    assert shown.classifier(torch.zeros(1, 2)).shape == logits.shape
    assert shown.shared.belongs_to(Outputs(logits, classifier=linear))


def test_the_targets_that_adapters_see_are_their_own(run, alone, helpers):
    records = run("mischief[where=targets]", *OTHERS)
    for label, bits in alone.items():
        assert helpers["bits"](records[label]) == bits


def test_stacked_students_are_guarded_too(run):
    """In a loss that is computed as one for several settings, and in one's own.

    Stacked sums have another order beside others, and their last bits differ.
    """
    where = {"pair": "toy-mlps", "dataset": "toy-vectors", "stack": True}
    others = ("kd", "kd[temperature=2]", "scratch")
    without = run(*others, **where)
    texts = [f"mischief[what={what}]" for what in ("dtype", "threads")]
    texts.append("mischief[what=dtype]+kd")
    records = run(*texts, *others, **where)
    for label in others:
        for name, curve in without[label].curves.items():
            assert records[label].curves[name] == pytest.approx(curve, rel=1e-5)
    for text in texts:
        assert "for the whole process in epoch 2, step 1" in records[text].reason


def test_a_loop_of_ones_own_is_guarded(run, alone, helpers):
    texts = ["loop[what=dtype]", "loop[what=dtype,where=epoch]"]
    records = run(*texts, *OTHERS)
    for label, bits in alone.items():
        assert helpers["bits"](records[label]) == bits
    for text in texts:
        assert "changed torch's default dtype, for the whole" in records[text].reason


@pytest.mark.parametrize("where", ["batches", "first", "items"])
def test_a_loop_that_ends_no_epoch_ends_itself(run, where):
    text = f"loop[where={where}]"
    records = run(text, "scratch", batch_size=128)
    assert records[text].status == "failed"
    assert "100 passes over the training set without the end of an epoch" in (
        records[text].reason
    )
    assert records["scratch"].status == "finished"


def test_a_loop_around_all_epochs_ends_itself(run):
    records = run("loop[where=epochs]", "scratch", batch_size=128)
    reason = records["loop[where=epochs]"].reason
    assert "asked for epochs 100 times when none was left" in reason


def test_whole_trainings_within_an_epoch_are_allowed(run):
    """As many passes as ten trainings have, in each epoch."""
    assert TRAININGS * 2 <= LEAST_PASSES
    text = f"loop[passes={LEAST_PASSES}]"
    assert run(text, batch_size=128)[text].status == "finished"
    text = f"loop[passes={LEAST_PASSES + 1}]"
    assert run(text, batch_size=128)[text].status == "failed"


LOADED = """
import os, random
import torch
torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
random.seed(7)
from kdbench import hookimpl
{more}
"""


@pytest.mark.parametrize("more", ["", "raise ValueError('broken, too')"])
def test_what_an_import_changes_is_put_back(tmp_path, more):
    path = tmp_path / "meddler.py"
    path.write_text(LOADED.format(more=more))
    torch.manual_seed(1)
    before, drawn = settings(), global_generators()
    host = Host(found=[], modules=[_File(path)])
    assert put_back(before) == []
    assert global_generators() == drawn
    [plugin] = [p for p in host.plugins if p.name == "meddler"]
    assert plugin.status == ("broken" if more else "ok")
    assert plugin.meddled == [
        "torch's default dtype",
        "torch's global random generator",
        "random's global random generator",
    ]


class _File:
    """A plugin at hand whose only hook does what a file's import does."""

    __name__ = "meddler"

    def __init__(self, path: Path):
        self.path = path

    @hookimpl
    def kdbench_strategies(self):
        exec(self.path.read_text(), {})  # noqa: S102 - our own
        return []


def test_a_measure_that_changes_a_setting_is_none(guarded):
    def meddle(finished):
        torch.set_default_dtype(torch.float64)
        return 1.0

    finished = SimpleNamespace(
        task=Task(outputs=2), device="cpu", model=torch.nn.Linear(2, 2)
    )
    measure = Measure(
        name="meddle", summary="", unit="", better="higher", compute=meddle
    )
    values = measure_all([measure], "run", finished)
    assert torch.get_default_dtype() == torch.float32
    assert values.numbers == {"meddle": None}
    assert "changed torch's default dtype" in values.problems[0]


def test_an_event_that_changes_a_setting_is_told(tmp_path):
    class Tracker:
        __name__ = "tracker"

        @hookimpl
        def kdbench_run_started(self, run):
            torch.set_num_threads(3)

    host = Host(found=[], modules=[Tracker()])
    threads = torch.get_num_threads()
    [told] = host.emit("kdbench_run_started", run=None)
    assert torch.get_num_threads() == threads
    assert "changed torch's number of threads" in told


def test_what_is_raised_inside_passes_through():
    def act():
        torch.set_default_dtype(torch.float64)
        raise KeyError

    with pytest.raises(KeyError), kept():
        act()
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(Meddled), kept():
        torch.set_default_dtype(torch.float64)
    assert torch.get_default_dtype() == torch.float32


def test_the_working_directory_belongs_to_the_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").mkdir()
    with pytest.raises(Meddled, match="the working directory"), kept():
        os.chdir("inside")
    assert Path.cwd() == tmp_path
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with kept():  # nobody's fault
        pass


def test_precisions_said_in_two_ways_are_put_back():
    before = settings()
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.fp32_precision = "bf16"
    assert len(put_back(before)) >= 2
    assert settings() == before
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_guard_takes_microseconds():
    """About ten of them; the bound leaves room for a busy machine."""

    def once():
        with kept():
            pass

    assert min(timeit(once, number=200) / 200 for _ in range(5)) < 100e-6


def test_generators_are_where_they_were():
    before = global_generators()
    with seeded_back():
        torch.rand(3)
        random.random()  # noqa: S311 - as strategies do
        np.random.rand(3)  # noqa: NPY002
    assert global_generators() == before
