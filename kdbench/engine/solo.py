"""Level 4: a strategy drives its own loop, on the engine's parts, checkpointed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from time import perf_counter
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from kdbench.api import (
    Batch,
    Context,
    Dataset,
    Model,
    Outputs,
    Strategy,
)
from kdbench.engine import Stopped
from kdbench.engine.account import Account, accounted
from kdbench.engine.build import build_students, make_optimiser
from kdbench.engine.clock import Clock
from kdbench.engine.faults import raise_if_machine, reason_of
from kdbench.engine.feed import Feed, Step
from kdbench.engine.saver import Saver
from kdbench.engine.showing import shown
from kdbench.engine.streams import seed_global, seed_of
from kdbench.engine.teacher import Frozen, predict
from kdbench.engine.trace import Trace
from kdbench.records import Run
from kdbench.settings import kept
from kdbench.tasks import headline_of

TRAININGS = 10
LEAST_PASSES = 100
"""A strategy that passes over the training set as often as so many whole trainings do,
and at least so often, without ending an epoch will not end. Of what is published,
generations, assistants and pre-training need up to four trainings, of which each can be
one epoch here; `epochs()` may be asked for what is left as often."""


class Solo(Context):
    """One level 4 run: its context, and what the records need of it."""

    def __init__(
        self,
        run: Run,
        strategy: Strategy,
        specs: Sequence[Model],
        teachers: Sequence[nn.Module],
        feed: Feed,
        dataset: Dataset,
    ):
        self.run = run
        self.strategy = strategy
        self.feed = feed
        self.recipe = run.recipe
        self.task = dataset.task
        self.teachers = list(teachers)
        self.state: dict[str, float] = {}
        self.failure: str | None = None
        self.trace = Trace(Clock(feed.device), run.label)
        self.adapters: nn.Module | None = None
        leading = self.teachers[0] if self.teachers else None
        modules = build_students(run, specs, dataset, leading)
        self._frozen = Frozen(self.teachers)
        for teacher in self.teachers:
            self._count(teacher)
        self.modules = nn.ModuleList(modules).to(feed.device)
        rough = self.recipe.precision == "bfloat16"
        networks = (*self.teachers, *modules) if rough else ()
        self._arithmetic = _Bfloat16(networks, feed.device)
        self.students = list(self.modules)
        self.student: nn.Module = self.students[0]
        self._labelled = feed.labelled(strategy.label_fraction)
        self._generator = torch.Generator()
        self._optimisers: list[torch.optim.Optimizer] = []
        self._restored: list[dict[str, Any]] = []
        self._epoch = 0
        self._handed_out = 0  # batches of this epoch
        self._asked = 0  # for epochs, when none was left
        self._last_lr = self.recipe.lr
        self._open = False
        self._ended: dict[str, Any] | None = None
        self._saver: Saver | None = None
        self._account: Account | None = None
        self._stop: Callable[[], bool] = lambda: False
        self._tell: Callable[[Solo, int, float], None] = lambda *_: None

    def drive(
        self,
        saver: Saver,
        stop: Callable[[], bool],
        tell: Callable[[Solo, int, float], None],
    ) -> None:
        """Run the strategy to its end.

        Raises Stopped and the machine's faults; other failures are kept as the reason.
        """
        self._saver, self._stop, self._tell = saver, stop, tell
        try:
            with accounted(self.feed.device, [self.trace]) as self._account, kept():
                self._drive()
                self._charge()
        except (KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            where = f"in epoch {self._epoch + 1}"
            raise_if_machine(error, self.feed.device, f"{self.run.label} {where}")
            self.failure = f"{reason_of(error)} {where}"
        finally:
            self._arithmetic.remove()

    def _drive(self) -> None:
        drives = self.strategy.drives_itself()
        self.student = self.strategy.train(self) if drives else self._fit()
        if not isinstance(self.student, nn.Module):
            what = type(self.student).__name__
            raise TypeError(f"train() must return the student module, not {what}")
        if self._open:
            self._end_epoch()
        self._frozen.check()

    def _charge(self) -> None:
        """What the loop has taken until here is this run's."""
        assert self._account is not None  # noqa: S101 - set by drive()
        self.trace.settle()
        self._account.tick([self.trace])
        self._account.charge()

    def _count(self, teacher: nn.Module) -> None:
        """Charge every forward pass of a teacher that was handed out."""
        started = 0.0

        def before(*_: object) -> None:
            nonlocal started
            started = perf_counter()

        def after(*_: object) -> None:
            seconds = perf_counter() - started
            self.trace.charge("teacher", seconds)
            self.trace.cost["teacher_forwards"] += 1

        teacher.register_forward_pre_hook(before)
        teacher.register_forward_hook(after)

    @property
    def _passes(self) -> int:
        """How often a strategy may pass over the training set within an epoch."""
        return max(TRAININGS * self.recipe.epochs, LEAST_PASSES)

    def _hand_out(self) -> None:
        """Count a batch; raises where they are too many for one epoch."""
        self._handed_out += 1
        if self._handed_out > self._passes * self.feed.steps:
            raise RuntimeError(
                f"{self._passes} passes over the training set without the end of an "
                "epoch: ask context.epochs() for each epoch, or return the student"
            )

    def epochs(self) -> Iterator[int]:
        if self._epoch == self.recipe.epochs:
            self._asked += 1
            if self._asked > self._passes:
                raise RuntimeError(
                    f"asked for epochs {self._passes} times when none was left: return "
                    "the student after the last one"
                )
        while self._epoch < self.recipe.epochs and self.failure is None:
            yield self._epoch
            self._end_epoch()

    def batches(self) -> Iterator[Batch]:
        for step in range(self.feed.steps):
            if self._stop():
                self._halt()
            self._open = True  # an epoch without a batch did not take place
            self._hand_out()
            now = self.feed.at(self._epoch, step)
            self.feed.add_views(now, self.strategy.views)
            for taken in now.seconds.values():
                self.trace.charge("data", taken)
            seed = seed_of(self.run.seed, self.run.strategy, self._epoch, step)
            seed_global(seed, self.feed.device)
            self._generator.manual_seed(seed)
            self._last_lr = self.recipe.lr_at(now.when)
            for optimiser in self._optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = self._last_lr
            teacher_s = self.trace.cost["teacher_s"]
            started = perf_counter()
            yield self._batch(now)
            teacher_s = self.trace.cost["teacher_s"] - teacher_s
            self.trace.spend("own", perf_counter() - started - teacher_s)

    def items(self) -> Iterator[Batch]:
        self._open = True
        seed = seed_of(self.run.seed, self.run.strategy, "items")
        seed_global(seed, self.feed.device)
        self._generator.manual_seed(seed)
        for step in self.feed.in_order():
            if self._stop():
                self._halt()
            self._hand_out()
            teacher_s = self.trace.cost["teacher_s"]
            started = perf_counter()
            yield self._batch(step)
            teacher_s = self.trace.cost["teacher_s"] - teacher_s
            self.trace.spend("own", perf_counter() - started - teacher_s)

    def _batch(self, step: Step) -> Batch:
        return shown(
            step,
            self.task,
            list(step.views),
            labelled=self._labelled,
            epoch=step.when,
            progress=step.when / self.recipe.epochs,
            generator=self._generator,
        )

    def _fit(self) -> nn.Module:
        """A student without gradients, fitted to the strategy's targets in one go."""
        if self._epoch:  # fitted before the interruption
            return self.student
        inputs, targets = [], []
        asks = self.teachers[: self.strategy.teachers]  # not who only measures fidelity
        with torch.no_grad():
            for batch in self.items():
                answers = [Outputs(teacher(batch.inputs)) for teacher in asks]
                asked = replace(batch, teachers=tuple(answers))
                inputs.append(batch.inputs)
                targets.append(self.strategy.target(asked))
        started = perf_counter()
        fit: Callable[[Tensor, Tensor], None] = self.student.fit  # type: ignore[assignment]
        fit(torch.cat(inputs), torch.cat(targets))
        self.trace.spend("own", perf_counter() - started)
        return self.student

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        made = make_optimiser(self.recipe, parameters)
        if self._restored:
            made.load_state_dict(self._restored.pop(0))
        self._optimisers.append(made)
        return made

    def log(self, term: str, value: Tensor) -> None:
        self.trace.add(term, value)

    def _end_epoch(self) -> None:
        assert self._saver is not None  # noqa: S101 - set by drive()
        self._open = False
        self._handed_out = 0
        self._frozen.check()
        self._arithmetic.paused = True
        with self.trace.timed("evaluation"):
            outputs = predict(self.student, self.feed)
            value = headline_of(self.task, outputs, self.feed.test_targets)
        self._arithmetic.paused = False
        broken = self.trace.end_epoch(
            {self.task.headline.name: value, "lr": self._last_lr}
        )
        if not outputs.isfinite().all():
            broken.append("the student's outputs")
        views = 1 + len(self.strategy.views)
        self.trace.cost["student_epochs"] += len(self.modules) * views
        self._epoch += 1
        if broken:
            self.failure = f"not finite in epoch {self._epoch}: {', '.join(broken)}"
            return
        self._tell(self, self._epoch, value)
        self._charge()
        self._ended = deepcopy(self._state())  # what a stop in mid-epoch goes back to
        if self._saver.due():
            self._keep()
        if self._stop():
            self._halt()

    def _keep(self) -> None:
        """Checkpoint the end of the last epoch, unless that is done."""
        assert self._saver is not None  # noqa: S101 - set by drive()
        ended, self._ended = self._ended, None
        if ended is not None:
            with self.trace.timed("checkpoint"):
                self._saver.put(self.run.id, lambda: ended)

    def _halt(self) -> NoReturn:
        self._keep()
        raise Stopped

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "students": self.modules.state_dict(),
            "optimisers": [o.state_dict() for o in self._optimisers],
            "state": self.state,
            "trace": self.trace.state(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Stand where a checkpoint does, before `drive`."""
        self._epoch = saved["epoch"]
        self.modules.load_state_dict(saved["students"])
        self._restored = list(saved["optimisers"])
        self.state = saved["state"]
        self.trace.restore(saved["trace"])


class _Bfloat16:
    """Networks that compute in bfloat16, whoever calls them, and answer in float32.

    Not while they are measured: `paused`.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device):
        self.paused = False
        self._device = device.type
        self._running: list[torch.autocast] = []
        self._hooks = [
            hook
            for module in modules
            for hook in (
                module.register_forward_pre_hook(self._enter),
                module.register_forward_hook(self._leave, always_call=True),
            )
        ]

    def _enter(self, *_: object) -> None:
        enabled = not self.paused
        self._running.append(torch.autocast(self._device, torch.bfloat16, enabled))
        self._running[-1].__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        self._running.pop().__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) else output

    def __deepcopy__(self, _: object) -> _Bfloat16:
        """A copied network's hooks are paused with the others."""
        return self

    def remove(self) -> None:
        self.paused = True
        for hook in self._hooks:
            hook.remove()
