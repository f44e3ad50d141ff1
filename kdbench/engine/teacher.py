"""The teacher stage: frozen teachers, run once per batch for all learners."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor, nn

from kdbench.api import Outputs
from kdbench.engine.feed import Feed, Step
from kdbench.models.taps import TappedModel

Ask = tuple[str, int]
"""A view of the batch ("" as it is), and which teacher is to answer to it."""


def predict(model: nn.Module, feed: Feed) -> Tensor:
    """Outputs for the whole test set, (N, C) on the CPU; train mode is restored.

    Logits, or numbers in the targets' own unit.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part).float() for part in feed.test_batches()])
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
            if module.training or any(p.requires_grad for p in module.parameters()):
                raise RuntimeError("a teacher left eval mode or asks for gradients")
            if weights_hash(module) != known:
                raise RuntimeError("a teacher's weights or buffers changed in training")


class TeacherStage:
    """Frozen teachers of a group. Their answers are computed when first asked for."""

    def __init__(self, teachers: Sequence[TappedModel]):
        self._teachers = teachers
        self.frozen = Frozen([teacher.module for teacher in teachers])
        self.seconds: dict[Ask, float] = {}
        self._answers: dict[Ask, Outputs] = {}
        self._step: Step | None = None

    def begin(self, step: Step) -> None:
        """Forget the last batch."""
        self._step = step
        self._answers.clear()
        self.seconds.clear()

    def answers(self, asks: Sequence[Ask]) -> dict[Ask, Outputs]:
        """These teachers' outputs; what computing each cost stands in `seconds`."""
        for view, k in asks:
            if (view, k) not in self._answers:
                assert self._step is not None  # noqa: S101 - begin() came first
                inputs = self._step.seen(view)
                before = inputs._version
                started = perf_counter()
                with torch.no_grad():
                    self._answers[view, k] = self._teachers[k](inputs)
                self.seconds[view, k] = perf_counter() - started
                if inputs._version != before:
                    raise RuntimeError("a teacher writes to its inputs in place")
        return {ask: self._answers[ask] for ask in asks}

    def shared(self) -> list[Tensor]:
        """Every tensor handed out for this batch; nobody may write to them."""
        given = []
        for outputs in self._answers.values():
            given += [outputs.logits, *outputs.features.values()]
        return given
