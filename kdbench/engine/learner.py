"""A learner: one run's student(s), adapters, optimiser and random streams."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdbench.api import (
    Batch,
    Dataset,
    ExtraView,
    Model,
    Outputs,
    Strategy,
    Tapped,
)
from kdbench.engine.build import build_students, make_optimiser
from kdbench.engine.feed import Feed, Step
from kdbench.engine.phases import Schedule
from kdbench.engine.streams import global_stream, seed_global, seed_of
from kdbench.engine.teacher import Ask, predict
from kdbench.engine.trace import Trace
from kdbench.models.taps import TappedModel, probe
from kdbench.records import Run
from kdbench.tasks import headline_of

T = TypeVar("T")

Position = tuple[int, int]
"""(epoch, step) to do next."""


def reason_of(error: BaseException) -> str:
    """One line: what was raised, and where in the plugin's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    words = " ".join(str(error).split())
    what = f"{type(error).__name__}: {words[:300]}".rstrip(": ")
    if not frames:
        return what
    last = frames[-1]
    return f"{what} ({last.filename.rpartition('/')[2]}:{last.lineno})"


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
    ):
        """Build students and adapters; whatever the plugin raises passes through.

        `teachers` are the group's; the strategy learns from those that `uses` names.
        """
        self.run = run
        self.strategy = strategy
        self.sees = ("", *strategy.views)
        self.uses = tuple(uses)
        own, asked = strategy.student_views, strategy.teacher_views
        self._own_views = self.sees if own is None else own
        self._asked_views = self.sees if asked is None else asked
        self.feed = feed
        self.recipe = run.recipe
        self._schedule = Schedule(strategy.phases(), run.recipe)
        self.position: Position = (self._schedule.first, 0)
        self.failure: str | None = None
        self.trace = Trace()
        leading = teachers[0][1] if teachers else None
        modules = build_students(run, specs, dataset, leading)
        self.modules = nn.ModuleList(modules).to(feed.device)
        self.adapters: nn.Module | None = None
        if teachers:
            spec, module = teachers[uses[0] if uses else 0]
            with global_stream(run.seed, "adapters", run.strategy):
                self.adapters = strategy.adapters(
                    self._side(specs[0], modules[0], dataset),
                    self._side(spec, module, dataset),
                )
        if self.adapters is not None:
            self.adapters.to(feed.device)
        self.student = strategy.deployed(list(self.modules), self.adapters)
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

    def _side(self, spec: Model, module: nn.Module, dataset: Dataset) -> Tapped:
        """One side of the pair as `adapters` is shown it."""
        return replace(
            probe(spec, self.strategy.taps, dataset),
            model=deepcopy(module),
            recipe=self.recipe,
            targets=self.feed.train_targets,
        )

    def _enter_phase(self) -> None:
        """Who trains, who answers, and a fresh optimiser, by the position."""
        phase = self._schedule.at(self.position[0])
        everyone = range(len(self.modules))
        self._phase = phase
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

    def _set_modes(self) -> None:
        """Who learns is in train mode, students that only answer are in eval mode."""
        for k, module in enumerate(self.modules):
            module.train(k in self._learns)
        if self.adapters is not None:
            self.adapters.train()

    def due(self, position: Position) -> bool:
        """Whether this step is still to do."""
        return self.failure is None and self.position <= position

    def step(self, step: Step, teachers: Mapping[Ask, Outputs]) -> None:
        """One optimisation step. A failure is kept as the reason, never raised."""
        started = perf_counter()
        try:
            self._step(step, teachers)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            where = f"epoch {step.epoch + 1}, step {step.step + 1}"
            self.failure = f"{reason_of(error)} in {where}"
        after = (step.epoch, step.step + 1)
        self.position = after
        self.trace.cost["own_s"] += perf_counter() - started

    def _step(self, step: Step, teachers: Mapping[Ask, Outputs]) -> None:
        phase = self._phase
        length = phase.length(self.recipe)
        epoch = step.when - self._schedule.start_of(phase)
        progress = epoch / length
        seed = seed_of(self.run.seed, self.run.strategy, step.epoch, step.step)
        seed_global(seed, self.feed.device)
        self._generator.manual_seed(seed)
        if self._labelled is None:
            labelled = torch.ones_like(step.index, dtype=torch.bool)
        else:
            labelled = self._labelled[step.index]
        answers = self._answers(step, self._learns, self._own_views)
        with torch.no_grad():
            peers = self._answers(step, phase.peers, self._asked_views)
        self.trace.cost["teacher_forwards"] += len(self._asked_views) * len(phase.peers)
        taught = {
            view: (*(teachers[a] for a in self.asks if a[0] == view), *peers[view])
            for view in self.sees
        }
        strategy = self.strategy.at(progress)
        batch = Batch(
            task=self.feed.task,
            inputs=step.inputs,
            targets=step.targets,
            index=step.index,
            labelled=labelled,
            students=answers[""],
            teachers=taught[""],
            adapters=self.adapters,
            progress=progress,
            epoch=epoch,
            generator=self._generator,
            phase=phase.name,
            views={
                name: ExtraView(
                    inputs=step.views[name].inputs,
                    partner=step.views[name].partner,
                    share=step.views[name].share,
                    students=answers[name],
                    teachers=taught[name],
                )
                for name in self.strategy.views
            },
        )
        terms = strategy.terms(batch)
        total = _total(terms)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        lr = self._rates.lr
        if not phase.constant_lr:  # the schedule, stretched to the phase
            lr = self._rates.lr_at(epoch * (self.recipe.epochs / length))
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        for name, value in terms.items():
            self.trace.add(name, value)

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
            result = act()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            self.failure = f"{reason_of(error)} after epoch {self.position[0]}"
            return None
        return result if self.failure is None else None

    def end_epoch(self) -> float:
        """Evaluate (the task's headline), close the curves, check they are finite.

        In a phase before the last one there is nothing to evaluate yet: nan.
        """
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
        if epoch + 1 < self.recipe.epochs and self._schedule.starts_at(epoch + 1):
            self._enter_phase()
        return value

    def _evaluate(self) -> tuple[float, list[str]]:
        """The headline, and the terms of the epoch that are not finite."""
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
            "students": self.modules.state_dict(),
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


def _total(terms: object) -> Tensor:
    """The sum of the named terms; says plainly what is wrong with them."""
    if not isinstance(terms, dict) or not terms:
        raise TypeError(f"loss() must return a dict of named terms, not {terms!r}")
    total: Tensor | None = None
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.dim() != 0:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value)
            raise TypeError(f"loss term {name!r} must be a scalar tensor, not {shape}")
        total = value if total is None else total + value
    assert total is not None  # noqa: S101 - terms is not empty
    if not total.requires_grad:
        raise TypeError(f"the loss terms {list(terms)} do not depend on the student")
    return total
