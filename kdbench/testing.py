"""Fixtures for the tests of strategies: batches by hand, references, gradients.

A plugin's `conftest.py` imports `assert_same`, `assert_trains` and `given` from here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from kdbench.api import Batch, Outputs, Strategy
from kdbench.tasks import Task


@dataclass
class Given:
    """Builds what the tests need; `tensors` are the teacher's and student's leaves."""

    generator: torch.Generator
    students: list[Tensor] = field(default_factory=list)
    teachers: list[Tensor] = field(default_factory=list)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """A float64 leaf that wants a gradient."""
        x = torch.randn(*shape, generator=self.generator, dtype=torch.float64)
        return (x * scale).requires_grad_()

    def classes(self, items: int, classes: int) -> Tensor:
        """Class indices, (items,)."""
        return torch.randint(classes, (items,), generator=self.generator)

    def batch(
        self,
        *,
        items: int = 4,
        classes: int = 5,
        students: int = 1,
        teachers: int = 1,
        student_shapes: Mapping[str, Sequence[int]] | None = None,
        teacher_shapes: Mapping[str, Sequence[int]] | None = None,
        adapters: nn.Module | None = None,
        labelled: Tensor | None = None,
        progress: float = 1.0,
        epoch: float = 100.0,
        dtype: torch.dtype = torch.float32,
        scale: float = 1.0,
        task: Task | None = None,
        inputs: Tensor | None = None,
    ) -> Batch:
        """A batch of these shapes; maps are channels_last, as the engine may give.

        A regression `task` has standard normal targets; `inputs` default to zeros.
        """

        def leaf(*shape: int) -> Tensor:
            x = self.normal(*shape, scale=scale).detach().to(dtype)
            if x.ndim == 4:
                x = x.to(memory_format=torch.channels_last)
            return x.requires_grad_()

        def outputs(shapes: Mapping[str, Sequence[int]] | None) -> Outputs:
            features = {k: leaf(items, *s) for k, s in (shapes or {}).items()}
            width = task.outputs if task else classes
            return Outputs(leaf(items, width), features)

        student_side = tuple(outputs(student_shapes) for _ in range(students))
        teacher_side = tuple(outputs(teacher_shapes) for _ in range(teachers))
        self.students = [t for o in student_side for t in leaves(o)]
        self.teachers = [t for o in teacher_side for t in leaves(o)]
        everything = torch.ones(items, dtype=torch.bool)
        task = task or Task(outputs=classes)
        if task.columns:
            targets = self.normal(items, task.columns).detach().float()
        else:
            targets = self.classes(items, task.outputs)
        return Batch(
            task=task,
            inputs=torch.zeros(items, 1) if inputs is None else inputs,
            targets=targets,
            index=torch.arange(items),
            labelled=everything if labelled is None else labelled,
            students=student_side,
            teachers=teacher_side,
            adapters=adapters,
            progress=progress,
            epoch=epoch,
            generator=self.generator,
        )


def leaves(outputs: Outputs) -> list[Tensor]:
    return [outputs.logits, *outputs.features.values()]


@pytest.fixture
def given() -> Given:
    return Given(torch.Generator().manual_seed(0))


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Value and gradients of a fast loss equal its float64 reference's."""

    def check(
        fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor
    ) -> None:
        doubles = [x.detach().double().requires_grad_() for x in inputs]
        expected = slow(*doubles)
        wanted = torch.autograd.grad(expected, doubles)
        for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
            own = [x.detach().to(dtype).requires_grad_() for x in inputs]
            value = fast(*own)
            assert value.dtype == dtype
            got = torch.autograd.grad(value, own)
            scale = max(1.0, float(expected.detach().abs()))
            compare(value, expected, rtol, rtol * scale)
            for a, b in zip(got, wanted, strict=True):
                compare(a, b, rtol, rtol * max(float(b.abs().max()), 1e-3))

    def compare(a: Tensor, b: Tensor, rtol: float, atol: float) -> None:
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol)

    return check


@pytest.fixture
def assert_trains(given: Given) -> Callable[..., None]:
    """Terms are finite scalars; students and adapters learn, teachers do not."""

    def check(strategy: Strategy, batch: Batch, learns: Sequence[Tensor] = ()) -> None:
        terms = strategy.loss(batch)
        assert terms
        for value in terms.values():
            assert value.shape == ()
            assert value.dtype in (torch.float32, torch.float64)
            assert torch.isfinite(value)
        torch.autograd.backward(sum(terms.values(), torch.zeros(())))
        adapted = batch.adapters.parameters() if batch.adapters else ()
        for tensor in (*(learns or given.students), *adapted):
            assert tensor.grad is not None
            assert torch.isfinite(tensor.grad).all()
            assert tensor.grad.count_nonzero() > 0
        assert all(tensor.grad is None for tensor in given.teachers)

    return check
