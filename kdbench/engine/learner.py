"""A learner: one run's student(s), adapters, optimiser and random streams."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdbench.api import Batch, Dataset, Model, Outputs, Strategy
from kdbench.engine.adapter_time import AdapterTime
from kdbench.engine.build import build_students, make_optimiser, side_of
from kdbench.engine.clock import Clock
from kdbench.engine.faults import raise_if_machine, reason_of
from kdbench.engine.feed import Feed, Step
from kdbench.engine.graphs import GraphedStep, Recorder, Timed
from kdbench.engine.lesson import Lesson
from kdbench.engine.phases import Schedule
from kdbench.engine.showing import Seen, shown
from kdbench.engine.streams import global_stream, seed_global, seed_of
from kdbench.engine.teacher import Ask, predict
from kdbench.engine.terms import total_of
from kdbench.engine.trace import GRAPH, PARTS, Trace
from kdbench.engine.weighing import is_weighed, weighed
from kdbench.models.taps import TappedModel, resolve
from kdbench.records import Run
from kdbench.settings import kept
from kdbench.tasks import headline_of

T = TypeVar("T")

Position = tuple[int, int]
"""(epoch, step) to do next."""

SPOILED = "wrote in place to a tensor shared by all learners"


class Learner:
    """One run in a lockstep group."""

    def __init__(
        self,
        run: Run,
        strategy: Strategy,
        specs: Sequence[Model],
        teachers: Sequence[tuple[Model, nn.Module]],
        uses: Sequence[int],
        feed: Feed,
        dataset: Dataset,
        recorder: Recorder | None = None,
        start: nn.Module | None = None,
    ):
        """Build students and adapters; whatever the plugin raises passes through.

        `teachers` are the group's; the strategy learns from those that `uses` names.
        `recorder` makes the group's graphs where its device has such. A student that is
        made out of another network is made of `start`, else of the leading teacher.
        """
        self.run = run
        self.strategy = strategy
        self.sees = ("", *strategy.views)
        self.uses = tuple(uses)
        self.taps = {k: frozenset(resolve(*teachers[k], strategy.taps)) for k in uses}
        self._seen = Seen(self.taps)
        self._recorder = None if run.recipe.stack else recorder
        own, asked = strategy.student_views, strategy.teacher_views
        self._own_views = self.sees if own is None else own
        self._asked_views = self.sees if asked is None else asked
        self.feed = feed
        self.recipe = run.recipe
        self._schedule = Schedule(strategy.phases(), run.recipe)
        self.position: Position = (self._schedule.first, 0)
        self.failure: str | None = None
        self._weighs = False
        self.whole = True  # not stopped short in the middle of a step
        parts = (*PARTS, GRAPH) if self._recorder else PARTS
        self.trace = Trace(Clock(feed.device), run.label, parts)
        leading = teachers[0][1] if teachers else None
        modules = build_students(run, specs, dataset, start or leading)
        self.modules = nn.ModuleList(modules).to(feed.device)
        self.adapters: nn.Module | None = None
        if teachers:
            spec, module = teachers[uses[0] if uses else 0]
            with global_stream(run.seed, "adapters", run.strategy):
                both = (dataset, strategy, run.recipe, feed.train_targets)
                self.adapters = strategy.adapters(
                    side_of(specs[0], modules[0], *both), side_of(spec, module, *both)
                )
        if self.adapters is not None:
            self.adapters.to(feed.device)
        self.student = strategy.deployed(list(self.modules), self.adapters)
        apart = not run.recipe.stack  # where losses may be computed as one
        self._adapter_time = AdapterTime(self.trace, self.adapters, apart)
        self._students = [
            TappedModel(spec, module, strategy.taps, self.recipe.precision)
            for spec, module in zip(specs, self.modules, strict=True)
        ]
        if run.is_teacher and specs[0].weights is not None:
            modules[0].load_state_dict(specs[0].weights())
            self.position = (self.recipe.epochs, 0)  # there is nothing to train
        self._enter_phase()
        self._labelled = feed.labelled(strategy.label_fraction)
        self._generator = torch.Generator()

    def _enter_phase(self) -> None:
        """Who trains, who answers, and a fresh optimiser, by the position."""
        phase = self._schedule.at(self.position[0])
        everyone = range(len(self.modules))
        self._phase = phase
        self.trace.phase = phase.name
        self._learns = tuple(everyone) if phase.students is None else phase.students
        taught_by = range(len(self.uses)) if phase.teachers is None else phase.teachers
        self.asks = tuple(
            (view, self.uses[k]) for view in self._asked_views for k in taught_by
        )
        self._set_modes()
        learning = [self.modules[k] for k in self._learns]
        if self.adapters is not None:
            learning.append(self.adapters)
        trained = [p for x in learning for p in x.parameters() if p.requires_grad]
        first = self._learns[0] if self._learns else 0
        self._rates = self.recipe.of(self.run.students[first])
        self.optimiser = make_optimiser(self._rates, trained)
        recorder = self._recorder
        self._graphed = GraphedStep(self, recorder) if recorder else None

    def _set_modes(self) -> None:
        """Who learns is in train mode, students that only answer are in eval mode."""
        for k, module in enumerate(self.modules):
            module.train(k in self._learns)
        if self.adapters is not None:
            self.adapters.train()

    @property
    def sole(self) -> TappedModel | None:
        """Its student, if that alone learns and answers, to the plain batch only."""
        alone = len(self._students) == len(self._learns) == 1
        plain = self._own_views == ("",) and not self._phase.peers
        return self._students[0] if alone and plain else None

    @property
    def stage(self) -> tuple[int, int]:
        """Where its present phase begins, and how long it is."""
        phase = self._phase
        return self._schedule.start_of(phase), phase.length(self.recipe)

    def due(self, position: Position) -> bool:
        """Whether this step is still to do."""
        return self.failure is None and self.position <= position

    def step(self, lesson: Lesson) -> None:
        """One optimisation step. A failure is kept as the reason, never raised.

        Faults of the machine are raised, as they would fail every learner.
        """
        teachers = lesson.given(self)
        epoch, step = lesson.position
        past = (epoch - self.stage[0]) * self.feed.steps + step
        self._weighs = not self.recipe.stack and is_weighed(past, self._graphed)
        try:
            with self.trace.timed("own"), kept():
                self._step(lesson.step, teachers)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            where = f"epoch {epoch + 1}, step {step + 1}"
            self.whole = False
            raise_if_machine(error, self.feed.device, f"{self.run.label}, {where}")
            self.failure = f"{reason_of(error)} in {where}"
        self.position = (epoch, step + 1)
        if lesson.spoiled(self):
            self.failure = SPOILED

    def _step(self, step: Step, teachers: Mapping[Ask, Outputs]) -> None:
        if self._graphed:
            terms = self._graphed.gradients(step, teachers)
        else:
            self.seed(step)
            terms = self.gradients(step, teachers, self.trace.timed)
        asked = len(self._asked_views) * len(self._phase.peers)
        self.trace.cost["teacher_forwards"] += asked
        with self.trace.timed("optimiser"):
            self.update(step)
        for name, value in terms.items():
            self.trace.add(name, value)

    def gradients(
        self,
        step: Step,
        teachers: Mapping[Ask, Outputs],
        timed: Timed,
        kind: type[Batch] = Batch,
    ) -> dict[str, Tensor]:
        """Forward, loss and backward: the terms. The strategy is shown this kind."""
        with weighed(self, step, teachers) if self._weighs else nullcontext():
            with timed("student"):
                students = self._answers(step, self._learns, self._own_views)
                with torch.no_grad():
                    peers = self._answers(step, self._phase.peers, self._asked_views)
            # not within a capture, where nothing takes time
            self._adapter_time.running = timed == self.trace.timed
            with timed("loss"):
                terms = self.terms(step, teachers, students, peers, kind)
                total = total_of(terms)
            self._adapter_time.running = False
        with timed("backward"):
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(total)
        return terms

    def seed(self, step: Step) -> None:
        """Point the random streams at this step's."""
        seed = seed_of(self.run.seed, self.run.strategy, step.epoch, step.step)
        seed_global(seed, self.feed.device)
        self._generator.manual_seed(seed)

    def terms(
        self,
        step: Step,
        teachers: Mapping[Ask, Outputs],
        students: Mapping[str, tuple[Outputs, ...]],
        peers: Mapping[str, tuple[Outputs, ...]],
        kind: type[Batch] = Batch,
        strategy: Strategy | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the strategy, or of another one, from everyone's answers."""
        epoch, progress = self._progress(step)
        taught = {
            view: (
                *(self._seen(a, teachers[a]) for a in self.asks if a[0] == view),
                *peers[view],
            )
            for view in self.sees
        }
        batch = shown(
            step,
            self.feed.task,
            self.strategy.views,
            labelled=self._labelled,
            epoch=epoch,
            progress=progress,
            generator=self._generator,
            students=students,
            teachers=taught,
            adapters=self.adapters,
            phase=self._phase.name,
            kind=kind,
        )
        return (strategy or self.strategy).at(progress).terms(batch)

    def _progress(self, step: Step) -> tuple[float, float]:
        """Epochs done of this phase, with a fraction, and the share of it."""
        epoch = step.when - self._schedule.start_of(self._phase)
        return epoch, epoch / self._phase.length(self.recipe)

    def update(self, step: Step) -> None:
        """The optimiser's step, at the learning rate that the schedule has here."""
        self.set_rate(step)
        self.optimiser.step()
        self.optimiser.zero_grad()  # its memory is the next learner's

    def set_rate(self, step: Step) -> float:
        """Give the optimiser the learning rate that the schedule has here."""
        lr = self._rates.lr
        if not self._phase.constant_lr:  # the schedule, stretched to the phase
            epoch, _ = self._progress(step)
            length = self._phase.length(self.recipe)
            lr = self._rates.lr_at(epoch * (self.recipe.epochs / length))
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        return lr

    def _answers(
        self, step: Step, students: Sequence[int], views: Sequence[str]
    ) -> dict[str, tuple[Outputs, ...]]:
        """These students' answers to these views, and none to the others."""
        return {
            view: tuple(
                self._students[k](step.seen(view)) for k in students if view in views
            )
            for view in self.sees
        }

    def guarded(self, act: Callable[[], T]) -> T | None:
        """Do this for the learner; None, and the failure kept, where it fails."""
        try:
            with kept():
                result = act()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            where = f"after epoch {self.position[0]}"
            self.whole = False
            raise_if_machine(error, self.feed.device, f"{self.run.label} {where}")
            self.failure = f"{reason_of(error)} {where}"
            return None
        return result if self.failure is None else None

    def end_epoch(self) -> float:
        """Evaluate (the task's headline), close the curves, check they are finite.

        In a phase before the last one there is nothing to evaluate yet: nan.
        """
        self._seen.check()
        epoch = self.position[0]
        value = math.nan
        if self._schedule.is_last(epoch):
            value, broken = self._evaluate()
        else:
            broken = self.trace.end_epoch({}, self._phase.name)
        if epoch < 0:
            self.trace.cost["epochs_before"] += 1
        if broken:
            self.failure = f"not finite in epoch {epoch + 1}: {', '.join(broken)}"
        self.trace.cost["student_epochs"] += len(self._learns) * len(self._own_views)
        self.position = (epoch + 1, 0)
        if epoch + 1 == self.recipe.epochs:
            self._adapter_time.remove()
        elif self._schedule.starts_at(epoch + 1):
            self._enter_phase()
        return value

    def _evaluate(self) -> tuple[float, list[str]]:
        """The headline, and the terms of the epoch that are not finite."""
        with self.trace.timed("evaluation"):
            outputs = predict(self.student, self.feed)
            self._set_modes()
            value = headline_of(self.feed.task, outputs, self.feed.test_targets)
        broken = self.trace.end_epoch(
            {
                self.feed.task.headline.name: value,
                "lr": self.optimiser.param_groups[0]["lr"],
            }
        )
        if not outputs.isfinite().all():
            broken.append("the student's outputs")
        return value, broken

    def state(self) -> dict[str, Any]:
        """Everything that a bit-identical continuation needs."""
        return {
            "position": list(self.position),
            # stacked ones are parts of a whole, which a file would hold in full
            "students": {k: v.clone() for k, v in self.modules.state_dict().items()},
            "adapters": None if self.adapters is None else self.adapters.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "trace": self.trace.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        epoch, step = state["position"]
        self.position = (epoch, step)
        self._enter_phase()
        self.modules.load_state_dict(state["students"])
        if self.adapters is not None:
            self.adapters.load_state_dict(state["adapters"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.trace.restore(state["trace"])
        unknown = math.isnan(self.trace.cost["adapters_s"])  # by an earlier version
        if unknown or epoch == self.recipe.epochs:
            self._adapter_time.remove()
