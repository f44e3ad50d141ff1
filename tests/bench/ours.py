"""kdbench's way: the engine's own lockstep loop over the host's own strategies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import torch
from peak import convolution_rate
from workload import BATCH, IMAGES, Workload

from kdbench.engine import Stopped
from kdbench.engine.device import settle
from kdbench.engine.feed import Feed
from kdbench.engine.graphs import recorder_for
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import train
from kdbench.engine.saver import Saved, Saver
from kdbench.engine.teacher import FrozenTeacher, TeacherStage
from kdbench.plugins import Host
from kdbench.records import Run

PARTS = ("student_s", "adapters_s", "loss_s", "backward_s", "optimiser_s")
SHARES = ("data_share_s", "teacher_share_s")


class Unsaved(Saver):
    """No checkpoints: a visit ends as an interrupted run does, without its writing."""

    def due(self) -> bool:
        return False

    def save(self, learners: Sequence[Saved]) -> None:
        """Nothing: the learners go on in this process."""


class Timed(Saver):
    """Checkpoints on a time budget, and how long writing them took."""

    seconds = 0.0
    times = 0

    def save(self, learners: Sequence[Saved]) -> None:
        started = perf_counter()
        super().save(learners)
        self.seconds += perf_counter() - started
        self.times += 1


def group(work: Workload, host: Host) -> tuple[Feed, TeacherStage, list[Learner]]:
    """The feed, the teachers and the learners of one group, as a job makes them."""
    device = torch.device(work.device)
    recipe = work.recipe()
    settle(device, work.threads, recipe.deterministic)
    dataset = work.dataset()
    feed = Feed(work.data(), dataset.task, recipe, 0, device)
    spec, module = work.trained_teacher(host)
    teacher = (spec, module.to(device))
    recorder = recorder_for(device)
    learners = []
    for label, (name, params) in zip(work.labels(), work.methods, strict=True):
        strategy = host.strategy(name).configured(params)
        run = Run(
            dataset=dataset.name,
            pair=f"{work.teacher}-{work.student}",
            teachers=(work.teacher,),
            students=(work.student,),
            strategy=name,
            label=label,
            params=strategy.values(),
            seed=0,
            recipe=recipe,
            teacher_runs=("teacher",),
            code={},
        )
        students = [host.model(work.student)]
        learners.append(
            Learner(run, strategy, students, [teacher], [0], feed, dataset, recorder)
        )
    taps = [tap for learner in learners for tap in learner.strategy.taps]
    stage = TeacherStage([FrozenTeacher(*teacher, taps, feed)], feed)
    return feed, stage, learners


def refuse(learner: Learner) -> None:
    """A benchmark with a learner that failed has measured something else."""
    raise RuntimeError(f"{learner.run.label} failed: {learner.failure}")


def complain(note: str) -> None:
    raise RuntimeError(note)


class Lockstep:
    """One group, trained a few steps at each visit."""

    def __init__(self, work: Workload):
        self._work = work
        host = Host()
        self._feed, self._stage, self._learners = group(work, host)
        self._flops = 0.0
        self._left = 0

    def visit(self, steps: int) -> dict[str, float]:
        """Seconds per step of the whole group ("total") and of each learner's own part.

        Further "data_share_s", "teacher_share_s" and the sums over learners of the
        parts of their own time, such as "backward_s".
        """
        return self._trained(steps, Unsaved(Path(), 0))

    def _trained(self, steps: int, saver: Saver) -> dict[str, float]:
        before = self._costs()
        self._left = steps
        started = perf_counter()
        with suppress(Stopped):
            train(
                self._learners,
                self._stage,
                self._feed,
                saver,
                self._stop,
                lambda *_: None,
                refuse,
            )
        if self._work.device == "cuda":
            torch.cuda.synchronize()
        total = perf_counter() - started
        for learner in self._learners:
            if learner.failure is not None:
                refuse(learner)
        after = self._costs()
        spent = {name: (after[name] - before[name]) / steps for name in after}
        return {**spent, "total": total / steps}

    def _stop(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _costs(self) -> dict[str, float]:
        traces = {x.run.label: x.trace for x in self._learners}
        for trace in traces.values():
            trace.settle()
        own = {label: trace.cost["own_s"] for label, trace in traces.items()}
        sums = {
            part: sum(trace.cost[part] for trace in traces.values())
            for part in (*PARTS, *SHARES, "own_s")
        }
        return {**own, **sums}

    def visit_with_peak(self, steps: int) -> dict[str, float]:
        """A visit, and the rates of the students' steps and of the best convolution."""
        spent = self.visit(steps)
        if not self._flops:
            self._flops = step_flops(self._work, Host())
        rate = self._flops * len(self._learners) / spent["own_s"]
        peak = convolution_rate(self._work.precision)
        return {**spent, "student_flops": rate, "peak_flops": peak}

    def visit_with_checkpoints(
        self, steps: int, folder: str, every_s: float
    ) -> dict[str, float]:
        """A visit that writes checkpoints as a run does, and what one of them took."""
        saver = Timed(Path(folder), every_s, complain)
        spent = self._trained(steps, saver)
        files = [f for f in Path(folder).glob("*.ckpt") if "previous" not in f.name]
        written = sum(file.stat().st_size for file in files)
        return {
            "total": spent["total"] * steps,
            "saving": saver.seconds,
            "times": saver.times,
            "one": saver.seconds / saver.times,
            "megabytes": written / 1e6,
        }


def step_flops(work: Workload, host: Host) -> float:
    """Of one student's forward and backward pass over a batch (2 per multiply-add)."""
    from torch.utils.flop_counter import FlopCounterMode

    _, student = work.built(host, work.student)
    with FlopCounterMode(display=False) as counter:
        student(torch.zeros(BATCH, *IMAGES[work.images].shape)).sum().backward()
    return float(counter.get_total_flops())
