"""Recipe, run and record: the plain data that describes and outlives a training.

The lowest module of all: it imports nothing of kdbench's own, and no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PROTOCOL = "1"
"""Version of the rules that every number obeys (docs/protocol.md)."""

ENGINE = 4
"""Version of the engine's arithmetic: raise it when a change alters any result's bits,
so that finished runs of the old one are not mistaken for runs of the new one."""


class Strict(BaseModel):
    """Frozen data from a file or the command line; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Headline(Strict):
    """The measure that a table is ranked by, in words and direction.

    A gain is counted so that positive is better, in `gain_unit`.
    """

    name: str
    title: str
    unit: str
    gain_unit: str
    better: Literal["higher", "lower"]


TOP1 = Headline(
    name="top1", title="Top-1", unit="%", gain_unit="points", better="higher"
)
RMSE = Headline(name="rmse", title="RMSE", unit="", gain_unit="", better="lower")


class Recipe(Strict):
    """How everything in a group is trained. Defaults: the field's CIFAR-100 recipe.

    `lr_by_model` belongs to a suite: in a run it is resolved into `lr`, and keeps what
    an assistant has of its own. `cutout` and
    `image_size` are in pixels, `rand_augment` is (operations, magnitude of 10), `rise`
    the share of the training in which the learning rate of "one-cycle" grows.
    `validation` is the share of the training items that is held out of training, the
    same for every seed. `teacher_epochs` are those of teachers, where students have
    others; milestones move along. `stack` trains multi-layer perceptrons of one kind as
    one, which changes results by rounding and makes it depend on who is there;
    `deterministic` keeps a GPU to algorithms that add up in one order.
    """

    epochs: int = Field(default=240, ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.05, gt=0)
    lr_by_model: dict[str, float] = Field(default_factory=dict)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["constant", "step", "cosine", "one-cycle"] = "step"
    milestones: tuple[int, ...] = (150, 180, 210)
    gamma: float = Field(default=0.1, gt=0, le=1)
    rise: float = Field(default=0.2, gt=0, lt=1)
    crop_padding: int = Field(default=0, ge=0)
    flip: bool = False
    cutout: int = Field(default=0, ge=0)
    rand_augment: tuple[int, int] | None = None
    resized_crop: bool = False
    image_size: int = Field(default=0, ge=0)
    drop_last: bool = False
    validation: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    stack: bool = False
    deterministic: bool = False
    teacher_epochs: int | None = Field(default=None, ge=1)

    @field_validator("lr_by_model")
    @classmethod
    def _are_rates(cls, rates: dict[str, float]) -> dict[str, float]:
        for model, lr in rates.items():
            if lr <= 0:
                raise ValueError(f"{model} = {lr:g} is no learning rate; give one > 0")
        return dict(sorted(rates.items()))

    @field_validator("rand_augment")
    @classmethod
    def _is_augmentation(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not (value[0] >= 1 and 0 <= value[1] <= 10):
            raise ValueError("give [operations, magnitude]: at least 1, and 0 to 10")
        return value

    def of(self, model: str, *others: str) -> Recipe:
        """The recipe with the learning rate of this student.

        `lr_by_model` keeps the rates of `others` trained beside it, where they differ.
        """
        lr = self.lr_by_model.get(model, self.lr)
        rates = {other: self.lr_by_model.get(other, self.lr) for other in others}
        differ = {other: rate for other, rate in rates.items() if rate != lr}
        return self.model_copy(update={"lr": lr, "lr_by_model": differ})

    def fine_tuning(self, epochs: int | None = None) -> Recipe:
        """The recipe by which a compressed student is trained further.

        A tenth of the learning rate by the same schedule, over so many epochs, or a
        third of them.
        """
        return self._lasting(epochs or max(1, round(self.epochs / 3))).model_copy(
            update={
                "lr": self.lr / 10,
                "lr_by_model": {m: lr / 10 for m, lr in self.lr_by_model.items()},
            }
        )

    def of_teacher(self, model: str) -> Recipe:
        """The recipe by which this teacher is trained."""
        return self.of(model)._lasting(self.teacher_epochs or self.epochs)

    def _lasting(self, epochs: int) -> Recipe:
        """The recipe over so many epochs, with its milestones at the same shares."""
        milestones = tuple(round(m * epochs / self.epochs) for m in self.milestones)
        changes = {"epochs": epochs, "milestones": milestones, "teacher_epochs": None}
        return self.model_copy(update=changes)

    def lr_at(self, epoch: float) -> float:
        """Learning rate after `epoch` epochs (a fraction inside an epoch).

        "one-cycle" rises linearly over the first `rise` of the training and falls
        linearly to zero (Smith & Topin 2019, arXiv:1708.07120, without its last phase).
        """
        if self.schedule == "one-cycle":
            done = epoch / self.epochs
            left = (1 - done) / (1 - self.rise)
            return self.lr * max(0.0, min(done / self.rise, left))
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.schedule == "step":
            passed = sum(epoch >= milestone for milestone in self.milestones)
            return float(self.lr * self.gamma**passed)
        return self.lr

    def described(self) -> dict[str, Any]:
        """Plain data that identify the recipe: what came later counts where it is set.

        So records from before keep their ids.
        """
        names = ("stack", "deterministic", "validation", "teacher_epochs")
        later = {k for k in names if not getattr(self, k)}
        return self.model_dump(mode="json", exclude=later)

    def sentence(self) -> str:
        """The recipe in words, for tables and reports."""
        schedule: str = self.schedule
        if schedule == "step":
            after = ", ".join(str(m) for m in self.milestones)
            schedule = f"x{self.gamma:g} after epochs {after}"
        elif schedule == "one-cycle":
            schedule = f"one cycle, rising over {self.rise:.0%}"
        own = [f"{lr:g} for {model}" for model, lr in self.lr_by_model.items()]
        rates = ", ".join([f"{self.lr:g}", *own])
        bits = ", bfloat16 arithmetic" if self.precision == "bfloat16" else ""
        bits += ", stacked students" if self.stack else ""
        bits += ", deterministic algorithms" if self.deterministic else ""
        bits += f", {self.validation:.0%} held out" if self.validation else ""
        epochs = f"{self.epochs} epochs"
        if self.teacher_epochs:
            epochs += f" (teachers: {self.teacher_epochs})"
        return (
            f"{epochs}, batch {self.batch_size}, {self.optimiser} lr {rates} "
            f"({schedule}), momentum {self.momentum:g}, weight decay "
            f"{self.weight_decay:g}, {self._augmentation()} augmentation{bits}"
        )

    def _augmentation(self) -> str:
        inputs = []
        if self.resized_crop:
            inputs.append(f"random resized crop to {self.image_size or 'full size'}")
        if self.crop_padding:
            inputs.append(f"random crop with padding {self.crop_padding}")
        if self.flip:
            inputs.append("horizontal flip")
        if self.rand_augment:
            inputs.append("RandAugment({}, {})".format(*self.rand_augment))
        if self.cutout:
            inputs.append(f"cutout {self.cutout}")
        return " and ".join(inputs) or "no"


def digest(value: object, length: int = 12) -> str:
    """Hash of plain data: equal data, equal digest, on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Run(Strict):
    """One cell of the grid. Everything that its numbers depend on, and nothing else.

    `teacher_runs` are the ids of the runs that trained its teachers (empty for a
    teacher itself); `code` maps strategy, models and dataset to their source hashes.
    `label`, `system` and `note` are the suite's words, not part of its identity;
    `preset` names where `params` come from, if not from what was written and defaults.

    A run with a `compression` (`half`, or `half/int8_dynamic`, one after the other)
    starts from the student of the run `source`. Where it is trained further, by the
    recipe of its own, `beside` is that of the runs that it stands beside in a table.
    """

    dataset: str
    pair: str
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    strategy: str
    label: str
    params: dict[str, Any]
    seed: int
    recipe: Recipe
    teacher_runs: tuple[str, ...]
    code: dict[str, str]
    protocol: str = PROTOCOL
    engine: int = ENGINE
    preset: str = ""
    compression: str = ""
    source: str = ""
    beside: Recipe | None = None
    system: str = ""
    note: str = ""

    @property
    def id(self) -> str:
        """Content hash; label, system and note are only words."""
        later = ("preset", "compression", "source", "beside")
        words = {"label", "system", "note", *(k for k in later if not getattr(self, k))}
        plain = self.model_dump(mode="json", exclude=words | {"recipe"})
        return digest({**plain, "recipe": self.recipe.described()})

    @property
    def is_teacher(self) -> bool:
        return self.strategy == "teacher"

    @property
    def deployed(self) -> str:
        """Its leading student's model, with what compresses it: `NAME/COMPRESSION`."""
        return "/".join(part for part in (*self.students[:1], self.compression) if part)

    @property
    def measured_only(self) -> bool:
        """Whether its student is compressed, and not trained any further."""
        return bool(self.compression) and self.beside is None

    @property
    def rank(self) -> int:
        """Its place in the order of training: after its teachers and its source."""
        if self.is_teacher:
            return 0
        return 1 + len(self.compression.split("/")) if self.compression else 1

    @property
    def table_recipe(self) -> Recipe:
        """The recipe of the table that it stands in."""
        return self.beside or self.recipe

    @property
    def setting(self) -> tuple[str, str, str, str]:
        """What must be equal for two runs to stand in one table."""
        described = self.table_recipe.described()
        del described["lr_by_model"]
        recipe = digest([described, self.engine])
        return (self.dataset, self.pair, recipe, self.protocol)


class Record(Strict):
    """What a run leaves: one JSON file.

    `curves` holds one value per epoch: the headline's ("top1", "rmse") on the test set,
    "lr" and every loss term ("loss/ce"); null where a value was not finite. `measures`
    are those of the last epoch; `lists` holds measures of several numbers (one for
    each class, or bin). `cost` is in seconds unless its name says otherwise.
    `correct` is the base64 of one bit per test item, in order, packed as numpy.packbits
    does; null where items are not right or wrong.
    """

    format: Literal[1] = 1
    id: str
    run: Run
    headline: Headline = TOP1
    status: Literal["finished", "failed", "skipped"]
    reason: str | None = None
    family: str
    plugin: dict[str, str]
    environment: dict[str, str | int | float | None]
    finished_at: str
    curves: dict[str, list[float | None]] = Field(default_factory=dict)
    measures: dict[str, float | None] = Field(default_factory=dict)
    lists: dict[str, list[float | None]] = Field(default_factory=dict)
    cost: dict[str, float | None] = Field(default_factory=dict)
    test_items: int | None = None
    correct: str | None = None
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> Record:
        if self.id != self.run.id:
            raise ValueError(f"id {self.id} is not the hash of its run ({self.run.id})")
        return self


class Timing(Strict):
    """Speed of a model in one runtime, precision and number of threads.

    `latency_ms` is for one item and `throughput` in items per second at `batch` items:
    lower quartile, median, upper quartile, over `repeats` blocks each. `difference` is
    the largest absolute difference of its outputs from those of eager float32, over the
    largest absolute output. `spread` is the interquartile range over the median, the
    larger of both; `others` the share of the cores' time that other processes took
    meanwhile. `noisy` says that one of these is too large. Where there are no times,
    `reason` says why.
    """

    runtime: str
    precision: str
    threads: int
    batch: int | None = None
    latency_ms: tuple[float, float, float] | None = None
    throughput: tuple[float, float, float] | None = None
    repeats: int | None = None
    difference: float | None = None
    size_bytes: int | None = None
    spread: float | None = None
    others: float | None = None
    noisy: bool = False
    reason: str | None = None


class SpeedRecord(Strict):
    """Size and speed of one architecture on one machine; `measures` by name.

    `lists` are measures of several numbers, `taken` the names of all measures that were
    taken. `timings` are those in each runtime, `governor` the CPU's frequency governor.
    """

    format: Literal[1] = 1
    model: str
    dataset: str
    measures: dict[str, float | None]
    lists: dict[str, list[float | None]] = Field(default_factory=dict)
    taken: list[str] = Field(default_factory=list)
    timings: list[Timing] = Field(default_factory=list)
    governor: str | None = None
    environment: dict[str, str | int | float | None]
    finished_at: str
