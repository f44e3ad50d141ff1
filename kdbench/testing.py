"""What tests of plugins need: the conformance kit, batches by hand, references.

pytest finds the fixtures `check_strategy`, `check_plugin`, `given`, `assert_same` and
`assert_trains` by itself where kdbench is installed (`kdbench.pytest_plugin`).
"""

import dataclasses
import importlib.util
import inspect
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from kdbench.api import Batch, Outputs, Strategy, UserError
from kdbench.randomness import global_generators
from kdbench.tasks import Task

if TYPE_CHECKING:
    from kdbench.conformance.targets import Target

_TARGETS: "dict[object, Target]" = {}
"""What has been looked at, with its trainings."""

CHECKS: tuple[str, ...]
"""The names of all checks of strategies, in order: for `pytest.mark.parametrize`."""


__all__ = [
    "CHECKS",
    "Given",
    "assert_described",
    "assert_same",
    "assert_trains",
    "check_plugin",
    "check_strategy",
    "given",
    "leaves",
    "mutated",
    "no_global_randomness",
]


def __getattr__(name: str) -> object:
    if name != "CHECKS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kdbench.conformance.checks import checks_of  # all of the kit

    return tuple(check.name for check in checks_of("strategy"))


def check_strategy(
    kind: type[Strategy], *checks: str, pair: str = "", dataset: str = ""
) -> None:
    """Fail where the strategy does not pass all checks, or those named.

    Every failure is told in full. Of an installed plugin's strategy, what that plugin
    offers besides is there as well; any other is looked at alone. What is trained is
    kept, so that a test for each check takes no longer than one for all. `pair` and
    `dataset` name where it is trained, if it supports no toy.
    """
    from kdbench.conformance.targets import Target, of_class
    from kdbench.conformance.toys import Toy

    key = (kind, pair, dataset)
    if key not in _TARGETS:
        toy = Toy(dataset, pair) if pair and dataset else None
        _TARGETS[key] = Target(kind.__name__, (of_class(kind, toy),))
    _examine(_TARGETS[key], checks)


def check_plugin(target: ModuleType | str, *checks: str) -> None:
    """Fail where a plugin, or anything that it offers, does not pass all checks.

    `target` is the plugin's module, or what `kdbench check` is given. `checks` are
    names of those to carry out, all where there are none.
    """
    from kdbench.conformance.targets import find, of_module

    if target not in _TARGETS:
        found = find(target) if isinstance(target, str) else of_module(target)
        _TARGETS[target] = found
    _examine(_TARGETS[target], checks)


def _examine(target: "Target", checks: Sequence[str]) -> None:
    from kdbench.conformance.examination import examine

    examination = examine(target, checks)
    failures = [
        f"{result.thing.kind} {result.thing.name}: {finding}"
        for result in examination.results
        for finding in result.failures
    ]
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


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
        for answer in teacher_side:
            answer.shared.constant = True
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


@contextmanager
def no_global_randomness(but: Sequence[str] = ()) -> Iterator[None]:
    """Fail where the block draws from a global generator, or sets it.

    They are "torch" (of the CPU), "random" and "numpy", without those of `but`. What a
    learner draws there, or what others left there, would depend on its company: use
    `batch.generator`. Only `adapters` may draw from torch's, as the engine gives it a
    stream of its own.
    """
    before = global_generators()
    yield
    after = global_generators()
    touched = [k for k in before if before[k] != after[k] and k not in but]
    assert not touched, f"a global generator was used: {', '.join(touched)}"


def assert_described(kind: type[Strategy]) -> None:
    """A strategy is frozen, can be copied to another process, and says its sources.

    Every hyper-parameter has a comment "unit or range; source" behind it, and a weight
    or temperature that cannot be is refused by name.
    """
    strategy = kind()
    assert kind.paper
    assert pickle.loads(pickle.dumps(strategy)) == strategy  # noqa: S301 - our own
    source = inspect.getsource(kind)
    for name in kind.parameters():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(strategy, name, 1)
        assert re.search(rf"^    {name}: .+  # .*(;|relative).+", source, re.M), name
        worst = 0 if name.endswith("temperature") else -0.1
        if name.endswith(("_weight", "temperature")):
            with pytest.raises(UserError, match=f"{kind.name}: {name} must be >"):
                kind.configured({name: worst})


def mutated(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of the module with one piece of its source replaced.

    For tests that show that a wrong formula is noticed. Raises ValueError unless `old`
    occurs exactly once.
    """
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{module.__name__} has {old!r} {source.count(old)} times")
    spec = importlib.util.spec_from_loader(module.__name__, None)
    assert spec is not None
    copy = importlib.util.module_from_spec(spec)
    exec(compile(source.replace(old, new), module.__file__, "exec"), vars(copy))  # noqa: S102 - our own source
    return copy


def leaves(outputs: Outputs) -> list[Tensor]:
    return [outputs.logits, *outputs.features.values()]


@contextmanager
def seeded() -> Iterator[Given]:
    """What the fixture `given` gives; what adapters draw meanwhile is seeded too."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        yield Given(torch.Generator().manual_seed(0))


def comparing(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """What the fixture `assert_same` gives.

    Value and gradients of a fast loss equal its float64 reference's. The largest
    relative error of the float64 value is kept as a property of the test.
    """

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
            if dtype == torch.float64:
                wrong = abs(float(value.detach() - expected.detach()))
                size = max(abs(float(expected.detach())), 1e-12)
                record_property("reference_error", wrong / size)
            got = torch.autograd.grad(value, own)
            scale = max(1.0, float(expected.detach().abs()))
            compare(value, expected, rtol, rtol * scale)
            for a, b in zip(got, wanted, strict=True):
                compare(a, b, rtol, rtol * max(float(b.abs().max()), 1e-3))

    def compare(a: Tensor, b: Tensor, rtol: float, atol: float) -> None:
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol)

    return check


def training(given: Given) -> Callable[..., None]:
    """What the fixture `assert_trains` gives.

    Terms are finite scalars; students and adapters learn, teachers do not.
    """

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


@pytest.fixture
def given() -> Iterator[Given]:
    with seeded() as batches:
        yield batches


@pytest.fixture
def assert_same(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    return comparing(record_property)


@pytest.fixture
def assert_trains(given: Given) -> Callable[..., None]:
    return training(given)
