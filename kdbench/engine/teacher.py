"""The teacher stage: frozen teachers, run once per batch for all learners."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from kdbench.api import Model, Outputs
from kdbench.engine.answers import KEPT, MEMORY_BYTES, Answers
from kdbench.engine.clock import Clock, Spent
from kdbench.engine.feed import Feed, Step
from kdbench.engine.folding import ITEMS, folded, rounded
from kdbench.models.taps import TappedModel, classifier_of, resolve

Ask = tuple[str, int]
"""A view of the batch ("" as it is), and which teacher is to answer to it."""

PASS = "pass"  # noqa: S105 - over the whole training set
FRESH = "fresh"
"""Parts of what a kept answer takes, in place of a view."""

LIVELY = "a teacher left eval mode or asks for gradients"
CHANGED = "a teacher's weights or buffers changed in training"
"""What becomes of a teacher that does not stay as it was."""


def predict(
    model: nn.Module, feed: Feed, batches: Iterable[Tensor] | None = None
) -> Tensor:
    """Outputs for the whole test set, or these batches, (N, C) on the CPU.

    Logits, or numbers in the targets' own unit. Train mode is restored.
    """
    was_training = model.training
    model.eval()
    if batches is None:
        batches = feed.test_batches()
    with torch.no_grad():
        logits = torch.cat([model(part).float() for part in batches])
    model.train(was_training)
    return feed.restored(logits.cpu())


def weights_hash(module: nn.Module) -> str:
    """sha256 over names and bytes of all parameters and buffers."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(name.encode())
        flat = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        total.update(flat.numpy().tobytes())
    return total.hexdigest()


class Frozen:
    """Teachers in eval mode without gradients, and the proof that they stay so."""

    def __init__(self, modules: Sequence[nn.Module]):
        self._known = []
        for module in modules:
            module.eval().requires_grad_(False)
            self._known.append((module, weights_hash(module)))

    def check(self) -> None:
        """Protocol rule 7: eval mode, no gradient, weights and buffers unchanged."""
        for module, known in self._known:
            parts, weights = module.modules(), module.parameters()
            if any(x.training for x in parts) or any(p.requires_grad for p in weights):
                raise RuntimeError(LIVELY)
            if weights_hash(module) != known:
                raise RuntimeError(CHANGED)


class Teacher(Protocol):
    """What the stage asks: `module` holds all that must stay, `paths` has the taps."""

    module: nn.Module
    paths: dict[str, str]

    def __call__(self, inputs: Tensor) -> Outputs: ...


class FrozenTeacher:
    """A teacher that answers by a folded copy of its own.

    A tap in front of a folded batch norm is answered by the original, in one more pass:
    nobody's answers depend on what others tap. The original's classifier is the one
    handed out, in float32.
    """

    def __init__(
        self, spec: Model, module: nn.Module, wanted: Sequence[str], feed: Feed
    ):
        """`wanted` are taps; raises UserError for one that does not exist."""
        self.paths = resolve(spec, module, wanted)
        self._classifier = classifier_of(spec, module)
        precision, sample = feed.recipe.precision, feed.sample(ITEMS)
        ready = folded(spec, module.eval(), sample)
        copy = ready.module
        if precision == "bfloat16":
            copy = rounded(copy, sample)
        self.module: nn.Module = nn.ModuleList(dict.fromkeys([copy, module]))
        hidden = [n for n, path in self.paths.items() if path in ready.hidden]
        seen = [name for name in self.paths if name not in hidden]
        self._answering = [TappedModel(spec, copy, seen, precision)]
        if hidden:
            self._answering.append(TappedModel(spec, module, hidden, precision))

    def __call__(self, inputs: Tensor) -> Outputs:
        answers = [tapped(inputs) for tapped in self._answering]
        found = {name: x for one in answers for name, x in one.features.items()}
        in_order = {name: found[name] for name in self.paths}
        return Outputs(answers[0].logits, MappingProxyType(in_order), self._classifier)


@dataclass(frozen=True)
class Charge:
    """What a learner pays for one part of its teachers' answers in a step.

    `batches` is for how many teacher batches it stands. One that is not `shared` was
    made in an earlier step, for others: alone, the learner would have made it now.
    """

    part: Ask
    time: Spent
    batches: int
    shared: bool = True


class TeacherStage:
    """Frozen teachers of a group. Their answers are computed when first asked for.

    Where a `feed` is given whose inputs repeat, logits and "pooled" of the batch as it
    is are looked up in what each teacher said of the whole training set; other taps
    come from the batch itself.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        feed: Feed | None = None,
        folder: Path | None = None,
        memory: int = MEMORY_BYTES,
    ):
        """What passes `memory`, in bytes, lies in temporary files in `folder`."""
        self._teachers = teachers
        self._feed = feed if feed is not None and feed.repeats else None
        self._folder = folder
        self._memory = memory
        self.frozen = Frozen([teacher.module for teacher in teachers])
        self.seconds: dict[Ask, Spent] = {}
        self.forwards: dict[Ask, int] = {}
        self._answers: dict[Ask, Outputs] = {}
        self._whole: dict[int, Outputs] = {}
        self._step: Step | None = None
        self._kept: dict[int, Answers] = {}
        self._passes: dict[int, Charge] = {}
        self._met: set[tuple[Hashable, int]] = set()

    def begin(self, step: Step) -> None:
        """Forget the last batch."""
        last, self._step = self._step, step
        if last is not None and (last.epoch, last.step) != (step.epoch, step.step):
            for k, charge in self._passes.items():
                self._passes[k] = replace(charge, shared=False)
        self._answers.clear()
        self._whole.clear()
        self.seconds.clear()
        self.forwards.clear()

    def answers(
        self, asks: Sequence[Ask], taps: Sequence[str] | None = None
    ) -> dict[Ask, Outputs]:
        """These teachers' outputs with at least these taps; None stands for all.

        What computing each part took stands in `seconds`, for how many teacher batches
        it stands in `forwards`.
        """
        found = {}
        for view, k in asks:
            if not self._keeps(view):
                found[view, k] = self._asked((view, k), view)
                continue
            known = self._looked_up(k)
            beyond = self._goes_beyond(k, taps)
            found[view, k] = self._joined(k, known) if beyond else known
        return found

    def _keeps(self, view: str) -> bool:
        return self._feed is not None and not view

    def _goes_beyond(self, k: int, taps: Sequence[str] | None) -> bool:
        """Whether one of these taps is not kept."""
        return not set(self._teachers[k].paths if taps is None else taps) <= set(KEPT)

    def _asked(self, part: Ask, view: str) -> Outputs:
        """The teacher's answer to this view, computed unless it was before."""
        if part not in self._answers:
            assert self._step is not None  # noqa: S101 - begin() came first
            inputs = self._step.seen(view)
            before = inputs._version
            clock = Clock(inputs.device)
            started = clock.now()
            with torch.no_grad():
                self._answers[part] = self._teachers[part[1]](inputs)
            self.seconds[part] = clock.since(started)
            self.forwards[part] = 1
            if inputs._version != before:
                raise RuntimeError("a teacher writes to its inputs in place")
        return self._answers[part]

    def _joined(self, k: int, known: Outputs) -> Outputs:
        """What is kept, and the batch's own answer to the other taps."""
        if k not in self._whole:
            fresh = self._asked((FRESH, k), "").features
            features = {tap: known.features.get(tap, fresh[tap]) for tap in fresh}
            self._whole[k] = replace(known, features=MappingProxyType(features))
        return self._whole[k]

    def _looked_up(self, k: int) -> Outputs:
        """What the teacher said of the batch's items when it was asked about all."""
        if k not in self._kept:
            self._ask_about_all(k)
        if ("", k) not in self._answers:
            assert self._step is not None  # noqa: S101 - begin() came first
            clock = Clock(self._step.index.device)
            started = clock.now()
            self._answers["", k] = self._kept[k].at(self._step.index)
            self.seconds["", k] = clock.since(started)
            self.forwards["", k] = 0
        return self._answers["", k]

    def _ask_about_all(self, k: int) -> None:
        assert self._feed is not None  # noqa: S101 - its inputs repeat
        clock = Clock(self._feed.device)
        started = clock.now()
        room = self._memory - sum(answers.held for answers in self._kept.values())
        kept = Answers(self._teachers[k], self._feed, room, self._folder)
        self._kept[k] = kept
        self._passes[k] = Charge((PASS, k), clock.since(started), kept.batches)

    def charges(
        self, who: Hashable, asks: Sequence[Ask], taps: Sequence[str] | None = None
    ) -> list[Charge]:
        """What a learner pays for the `answers` that it was given in this step.

        The pass over the training set is paid by each learner once, at its first step.
        """
        charges = []
        for view, k in asks:
            parts = [(view, k)]
            if self._keeps(view):
                if (who, k) not in self._met:
                    self._met.add((who, k))
                    charges.append(self._passes[k])
                if self._goes_beyond(k, taps):
                    parts.append((FRESH, k))
            charges += [Charge(p, self.seconds[p], self.forwards[p]) for p in parts]
        return charges

    def shared(self) -> list[Tensor]:
        """Every tensor handed out for this batch; nobody may write to them."""
        given = []
        for outputs in (*self._answers.values(), *self._whole.values()):
            given += [outputs.logits, *outputs.features.values()]
        return given
