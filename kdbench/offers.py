"""What the hooks of a plugin return: datasets, models, pairs, measures and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdbench.tasks import KINDS, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = tuple[int, ...]

Number = float | None
Measured = Number | Sequence[Number] | Mapping[str, Number | Sequence[Number]]
"""What a measure may come to."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Items of a split: `inputs` (N, ...) uint8 or float, or (N, L) int64 token ids.

    `targets` are as the task says, in their own unit.
    """

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded dataset. `mean` and `std` are per channel, on the scale of `inputs`.

    Tokens have neither. `notes` are sentences that a user must know (such as how many
    texts were cut); they are printed once.
    """

    train: Split
    test: Split
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset by name. `load(data_dir, download)` raises UserError when missing.

    `vocabulary` is the number of token ids where the inputs are tokens (0: padding).
    `version` names the state of data that can change under one name. `stored_shape` is
    that of the items in `Data`, where the recipe crops them to `input_shape`.
    `locate(data_dir)` tells where the files lie without reading them all, and raises
    UserError where they are missing.
    """

    name: str
    summary: str
    source: str
    task: Task
    input_shape: Shape
    load: Callable[[Path | None, bool], Data]
    embedded: bool = False
    vocabulary: int = 0
    version: str = ""
    stored_shape: Shape | None = None
    locate: Callable[[Path | None], Path] | None = None

    def build(self, model: Model) -> nn.Module:
        """The model for these inputs and this task, freshly initialised."""
        words = (self.vocabulary,) if self.vocabulary else ()
        if model.tokens != bool(words):
            has = "tokens" if words else f"inputs of {self.input_shape}"
            reads = "tokens" if model.tokens else "numbers"
            raise ValueError(f"{model.name} reads {reads}; {self.name} has {has}")
        return model.build(self.input_shape, self.task.outputs, *words)

    def deployed(self, model: Model) -> nn.Module:
        """What becomes of the model when it is deployed, freshly initialised, in eval.

        Raises whatever its building does.
        """
        network = self.build(model).eval()
        return model.deploy(network).eval() if model.deploy else network

    def example(self, items: int) -> Tensor:
        """A batch of zeros, or of texts of full length, on the default device."""
        import torch

        if self.vocabulary:
            return torch.ones(items, *self.input_shape, dtype=torch.int64)
        return torch.zeros(items, *self.input_shape)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model by name. `build(input_shape, outputs)` returns it freshly initialised.

    `taps` maps names (stem, stage1..N, pooled) to module paths, in forward order; the
    output of that module is the feature, or its input where the path ends in ":input".

    One that reads `tokens` is built with the vocabulary's size as a third argument. A
    "fitted" `learner` learns without gradients: its module has `fit(inputs, targets)`
    with (N, ...) inputs and what `Strategy.target` gives, and keeps what it learned in
    its extra state, a uint8 tensor; `probabilities` is False where its outputs are no
    logits of probabilities. `from_teacher(teacher, input_shape, outputs)` makes the
    student out of the pair's trained teacher, in the architecture of `build`. `deploy`
    turns the trained student into what is measured and shipped. `weights` gives the
    state of a model that was trained elsewhere: as a teacher it is loaded and measured,
    not trained; `version` then names that state, such as the hash of its file.
    """

    name: str
    summary: str
    build: Callable[..., nn.Module]
    taps: Mapping[str, str]
    classifier: str
    tokens: bool = False
    learner: Literal["gradient", "fitted"] = "gradient"
    probabilities: bool = True
    from_teacher: Callable[[nn.Module, Shape, int], nn.Module] | None = None
    deploy: Callable[[nn.Module], nn.Module] | None = None
    weights: Callable[[], Mapping[str, Tensor]] | None = None
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Models or datasets by a prefix: `torchvision:resnet34`, `folder:PATH`.

    `name` is the prefix. `find(rest, host)` is given what stands behind the colon and
    returns the Model or Dataset, whose name is the whole text; it raises UserError when
    there is none. `host.model(name)` finds other models.
    """

    name: str
    summary: str
    find: Callable[[str, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Teacher(s) and student(s) by model name; the first of each leads.

    `assistants` are of a size between them, for what teaches in steps.
    """

    name: str
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    summary: str = ""
    assistants: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SuiteFile:
    """A suite by name: where its TOML lies."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Finished:
    """What a measure sees: a trained model and its answers on the whole test set.

    `logits` and `teacher_logits` are (N, C), `targets` (N,), on the CPU (regressions:
    (N, K), in the targets' own unit); the model is in eval mode on `device`.
    `teacher_logits` is None for the teacher itself and where there is none. `sample` is
    one normalised test batch of 256 items; tokens are texts of full length.

    `validation_logits` and `validation_targets` are those of the training items that
    the recipe holds out; None where it holds out none. `answers(change)` gives the
    logits for the test set with every batch changed first: `change` maps a batch of
    inputs as they are stored (uint8 or float, not normalised) to one of the same shape
    and type. `features()` gives what the classifiers of student and teacher are handed
    for the test set, (N, D) each on the CPU, or None where there is no teacher or a
    network without a classifier. Both are None where a model is timed, not measured.
    `probabilities` and `teacher_probabilities` are False where logits are none of
    probabilities, as `Model.probabilities` says.
    """

    model: nn.Module
    task: Task
    device: str
    sample: Tensor
    logits: Tensor
    targets: Tensor
    teacher_logits: Tensor | None
    validation_logits: Tensor | None = None
    validation_targets: Tensor | None = None
    answers: Callable[[Callable[[Tensor], Tensor]], Tensor] | None = None
    features: Callable[[], tuple[Tensor, Tensor] | None] | None = None
    probabilities: bool = True
    teacher_probabilities: bool = True


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number about a finished student, or None where it cannot be had.

    `scope` "run" is computed for every run from its own weights; "model" once for each
    architecture, on an otherwise idle machine (speed). An `optional` one is computed
    only where it is asked for, by `measures` in a suite or `run --measure NAME`.
    `better` is None where neither way is.
    """

    name: str
    summary: str
    unit: str
    better: Literal["higher", "lower"] | None
    scope: Literal["run", "model"] = "run"
    tasks: tuple[str, ...] = KINDS
    optional: bool = False
    compute: Callable[[Finished], Measured]
    """A mapping gives the number as "", and further ones as "<name>_<key>". A list of
    numbers (one for each class, or bin) is kept as such, and shown by no table."""


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What is done to a finished student: `kd/NAME` stands beside `kd` in every table.

    `model(base)` gives the compressed model: its `from_teacher` is handed the finished
    student (of the model `base`, or what the strategy deployed), and its `deploy` turns
    that into what is measured and shipped. One that `tunes` is trained further by the
    strategy between the two. `missing()` says why it cannot be used here, such as a
    package that is not installed, or None.
    """

    name: str
    summary: str
    model: Callable[[Model], Model]
    tunes: bool = False
    missing: Callable[[], str | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where groups run: `start(jobs, workers, host, emit, stop)` until all ended."""

    name: str
    summary: str
    start: Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """A report format: `render(results, folder)` writes files and returns them."""

    name: str
    summary: str
    render: Callable[[Any, Path], Sequence[Path]]
