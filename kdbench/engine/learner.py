"""A learner: one run's student(s), adapters, optimiser and random streams."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdbench.api import Batch, Dataset, ExtraView, Model, Outputs, Strategy, Tapped
from kdbench.engine.feed import Feed, Step
from kdbench.engine.streams import global_stream, seed_global, seed_of
from kdbench.engine.teacher import Ask, predict
from kdbench.engine.trace import Trace
from kdbench.models.taps import TappedModel, probe
from kdbench.records import Recipe, Run
from kdbench.tasks import headline_of

T = TypeVar("T")

Position = tuple[int, int]
"""(epoch, step) to do next."""


def make_optimiser(
    recipe: Recipe, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay covers every parameter alike (rule 12)."""
    wanted = list(parameters)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(
            wanted, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        wanted,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def build_students(
    run: Run, specs: Sequence[Model], dataset: Dataset, teacher: nn.Module | None = None
) -> list[nn.Module]:
    """Fresh students: the same start for every strategy of a seed (rule 14).

    A model that is made out of its teacher is given the leading one.
    """
    purpose = "teacher init" if run.is_teacher else "init"
    students = []
    for slot, spec in enumerate(specs):
        with global_stream(run.seed, purpose, spec.name, slot):
            if spec.from_teacher is None or teacher is None:
                student = dataset.build(spec)
            else:
                size = (dataset.input_shape, dataset.task.outputs)
                student = spec.from_teacher(teacher, *size)
        students.append(channels_last(student).requires_grad_().train())
    return students


def channels_last(module: nn.Module) -> nn.Module:
    """The module with its convolutions' weights in the faster layout."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            layout = torch.channels_last
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return module


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
        self.asks = tuple((view, k) for view in self.sees for k in uses)
        self.feed = feed
        self.recipe = run.recipe
        self.position: Position = (0, 0)
        self.failure: str | None = None
        self.trace = Trace()
        leading = teachers[0][1] if teachers else None
        modules = build_students(run, specs, dataset, leading)
        self.modules = nn.ModuleList(modules).to(feed.device)
        self._students = [
            TappedModel(spec, module, strategy.taps, self.recipe.precision)
            for spec, module in zip(specs, self.modules, strict=True)
        ]
        self.adapters: nn.Module | None = None
        if teachers:
            student = probe(specs[0], strategy.taps, dataset)
            spec, module = teachers[uses[0] if uses else 0]
            teacher = probe(spec, strategy.taps, dataset)
            with global_stream(run.seed, "adapters", run.strategy):
                self.adapters = strategy.adapters(
                    Tapped(specs[0].name, student.shapes, deepcopy(modules[0])),
                    Tapped(spec.name, teacher.shapes, deepcopy(module)),
                )
        if self.adapters is not None:
            self.adapters.to(feed.device).train()
        if run.is_teacher and specs[0].weights is not None:
            modules[0].load_state_dict(specs[0].weights())
            self.position = (self.recipe.epochs, 0)  # there is nothing to train
        self.optimiser = make_optimiser(self.recipe, self._trained())
        self._labelled = feed.labelled(strategy.label_fraction)
        self._generator = torch.Generator()

    def _trained(self) -> list[nn.Parameter]:
        adapters = self.adapters.parameters() if self.adapters is not None else ()
        return [p for p in (*self.modules.parameters(), *adapters) if p.requires_grad]

    @property
    def student(self) -> nn.Module:
        """The one that is measured and deployed."""
        return self.modules[0]

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
        seed = seed_of(self.run.seed, self.run.strategy, step.epoch, step.step)
        seed_global(seed, self.feed.device)
        self._generator.manual_seed(seed)
        if self._labelled is None:
            labelled = torch.ones_like(step.index, dtype=torch.bool)
        else:
            labelled = self._labelled[step.index]
        answers = {
            view: tuple(student(step.seen(view)) for student in self._students)
            for view in self.sees
        }
        taught = {
            view: tuple(teachers[ask] for ask in self.asks if ask[0] == view)
            for view in self.sees
        }
        batch = Batch(
            task=self.feed.task,
            inputs=step.inputs,
            targets=step.targets,
            index=step.index,
            labelled=labelled,
            students=answers[""],
            teachers=taught[""],
            adapters=self.adapters,
            progress=step.when / self.recipe.epochs,
            epoch=step.when,
            generator=self._generator,
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
        terms = _terms(self.strategy, batch)
        total = _total(terms)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.lr_at(step.when)
        self.optimiser.step()
        for name, value in terms.items():
            self.trace.add(name, value)

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
        """Evaluate (the task's headline), close the curves, check they are finite."""
        outputs = predict(self.student, self.feed)
        value = headline_of(self.feed.task, outputs, self.feed.test_targets)
        broken = self.trace.end_epoch(
            {
                self.feed.task.headline.name: value,
                "lr": self.optimiser.param_groups[0]["lr"],
            }
        )
        if not outputs.isfinite().all():
            broken.append("the student's outputs")
        epoch = self.position[0]
        if broken:
            self.failure = f"not finite in epoch {epoch + 1}: {', '.join(broken)}"
        self.trace.cost["student_epochs"] += len(self.modules) * len(self.sees)
        self.position = (epoch + 1, 0)
        return value

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
        self.modules.load_state_dict(state["students"])
        if self.adapters is not None:
            self.adapters.load_state_dict(state["adapters"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.trace.restore(state["trace"])


def _terms(strategy: Strategy, batch: Batch) -> dict[str, Tensor]:
    """The strategy's terms; of a multi-task head by head, unless it taps features."""
    if not batch.task.heads or strategy.taps:
        return strategy.loss(batch)
    return {
        f"{head.name}/{name}": head.weight * value
        for head, part in batch.heads()
        for name, value in strategy.loss(part).items()
    }


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
