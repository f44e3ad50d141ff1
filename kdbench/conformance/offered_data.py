"""Checks of a dataset. Where its data are not at hand, they do not apply.

Data are looked for where KDBENCH_DATA says, as by every command.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import Data, Dataset, Split, UserError
from kdbench.conformance.beside import once, part_of, standard
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.tried import Trial
from kdbench.conformance.untouched import Left, watching
from kdbench.data import checks, known
from kdbench.data.locate import ImageSet

MOST_BYTES = 4 * 2**30
"""Inputs of more are not compared one by one."""

SOME = 10_000
"""Items of which mean and deviation are taken, from all over the set."""

SHARED = 0.01
"""Share of the test items that may be in the training set, too. The published sets have
some by themselves: CIFAR-100 0.1%, SST-2 0.1%."""

EXACT = 0.05
NEAR = 0.25
"""How far mean and deviation may be off, in deviations: of rounded numbers, and of any.
ImageNet's published ones are off by 0.2: deviations of images, not of pixels."""

FREE = ("imagenet",)
"""Sets whose constants others may use: models that were trained elsewhere want them."""


@dataclass
class Loaded:
    """What came of loading it: data, or why there are none; and what that left."""

    data: Data | None
    missing: str
    mistake: str
    left: Left

    @property
    def there(self) -> Data:
        """The data; DoesNotApply where there are none."""
        if self.data is None:
            why = "its data are not at hand" if self.missing else "it does not load"
            raise DoesNotApply(f"{why}, see `loads`")
        return self.data


@once
def loaded(subject: OfferSubject) -> Loaded:
    dataset = subject.offer.thing
    data, missing, mistake = None, "", ""
    with watching() as left:
        try:
            kept = data = _load(dataset)
            if not isinstance(data, Data):
                raise TypeError(f"load() gave {type(data).__name__}, and not Data")
            checks.loaded(replace(dataset, load=lambda *_: kept), None, False)
        except UserError as error:
            gone = data is None and not dataset.embedded
            missing, mistake = (str(error), "") if gone else ("", str(error))
            data = None
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            mistake, data = f"{type(error).__name__}: {error}", None
    return Loaded(data, missing, mistake, left)


def _load(dataset: Dataset) -> Data:
    folder = os.environ.get("KDBENCH_DATA")
    return dataset.load(Path(folder) if folder else None, False)


def _handy(subject: OfferSubject) -> Data:
    """The data, where they are few enough to be looked at one by one."""
    data = loaded(subject).there
    size = data.train.inputs.nbytes
    if size > MOST_BYTES:
        raise DoesNotApply(f"{size / 2**30:.0f} GiB are too many to compare in a check")
    return data


@check(
    "dataset",
    what="`load` gives a Data whose inputs and targets have the declared shape, types "
    "and range: as `input_shape` (or `stored_shape`), `task` and `vocabulary` say.",
    why="Every run on it is refused otherwise; models are built for what is declared.",
    fix="Return Data(train=Split(...), test=Split(...), mean, std): inputs (N, ...) "
    "uint8 or float, or (N, L) int64 tokens; classes (N,) int64 from 0; numbers (N, K) "
    "float32. Raise UserError, with what to do, where the data are missing.",
)
def loads(subject: OfferSubject) -> None:
    found = loaded(subject)
    if found.mistake:
        raise Broken(found.mistake)
    if found.missing:
        raise DoesNotApply(found.missing)


@check(
    "dataset",
    what="Loading it once more gives the same items in the same order.",
    why="Runs of another day, or of another process, would be on other data under the "
    "same name, and their numbers stand in one table.",
    fix="Split and make items by a generator of your own with a fixed seed: "
    "torch.Generator().manual_seed(0), or random_state=0.",
)
def same_items(subject: OfferSubject) -> None:
    first = _handy(subject)
    second = _load(subject.offer.thing)
    wrong = []
    for part, one, other in _splits(first, second):
        for what in ("inputs", "targets"):
            a, b = getattr(one, what), getattr(other, what)
            if a.shape != b.shape:
                wrong.append(f"{part}: {what} {tuple(a.shape)}, then {tuple(b.shape)}")
            elif not torch.equal(a, b):
                differ = (a != b).flatten(1) if a.dim() > 1 else (a != b)[:, None]
                count = int(differ.any(1).sum())
                wrong.append(f"{part}: {what} of {count} of {len(a)} items differ")
    if wrong:
        raise Broken("loaded once more, " + "; ".join(wrong))


def _splits(first: Data, second: Data) -> Iterator[tuple[str, Split, Split]]:
    yield "train", first.train, second.train
    yield "test", first.test, second.test


@check(
    "dataset",
    what="`load` uses no global generator of torch, Python or NumPy, and changes no "
    "setting of the process.",
    why="Whoever draws after it would draw other numbers than without it; and data "
    "made by a global generator are other ones in every process.",
    fix="Give what draws a generator of its own with a fixed seed: generator=..., "
    "random_state=0, numpy.random.default_rng(0). Seed no global one.",
)
def own_randomness(subject: OfferSubject) -> None:
    found = loaded(subject)
    _ = found.there
    found.left.refuse("load()")


@check(
    "dataset",
    what="Hardly a test item has the inputs of a training item.",
    why="What a student has seen with its label, it need not generalise to: every "
    "number is then one of remembering.",
    fix="Split before anything is made out of the items (crops, windows, repetitions), "
    "by groups where several items are of one source, and without overlap: "
    "items[:n] and items[n:].",
)
def no_leakage(subject: OfferSubject) -> None:
    data = _handy(subject)
    seen = set(_marks(data.train.inputs))
    tests = list(_marks(data.test.inputs))
    places = [k for k, mark in enumerate(tests) if mark in seen]
    if len(places) > SHARED * len(tests):
        some = ", ".join(map(str, places[:5]))
        share = 100 * len(places) / len(tests)
        raise Broken(
            f"{len(places)} of {len(tests)} test items ({share:.1f}%) are in the "
            f"training set, too: rows {some}{', ...' if len(places) > 5 else ''}"
        )


def _marks(inputs: Tensor) -> Iterator[bytes]:
    """What an item is known by."""
    for item in inputs:
        numbers = item.cpu().contiguous().numpy()
        yield blake2b(numbers.tobytes(), digest_size=16).digest()


@check(
    "dataset",
    what="Each class has items in the training set and in the test set.",
    why="A class that is never trained cannot be learned, and one that is never tested "
    "is in no number: accuracy is then of another task than the table says.",
    fix="Stratify the split (stratify=targets), shuffle what is sorted by class before "
    "it is cut, and declare as many outputs as there are classes.",
)
def every_class(subject: OfferSubject) -> None:
    data, task = loaded(subject).there, subject.offer.thing.task
    wrong, asked = [], 0
    for part, split, _ in _splits(data, data):
        nothing = torch.empty(len(split.targets), task.outputs)
        for view in task.split(nothing, split.targets):
            if view.head.task.kind != "classification":
                continue
            asked += 1
            known = set(view.targets.unique().tolist())
            absent = [c for c in range(view.head.task.outputs) if c not in known]
            if absent:
                head = f" (head {view.head.name})" if view.head.name else ""
                some = ", ".join(map(str, absent[:5]))
                more = ", ..." if len(absent) > 5 else ""
                wrong.append(
                    f"{part}{head} has no item of {len(absent)} of "
                    f"{view.head.task.outputs} classes: {some}{more}"
                )
    if wrong:
        raise Broken("; ".join(wrong))
    if not asked:
        raise DoesNotApply("it has no classes")


@check(
    "dataset",
    what="`mean` and `std` are those of its own training inputs, by channel, on the "
    "scale of the inputs.",
    why="Constants of another set (CIFAR-100's on CIFAR-10), or of the scale 0 to 1 "
    "for bytes, train without an error, and every number is a little wrong.",
    fix="Take them of the training inputs: numbers = train.double(); mean = "
    "numbers.mean((0, 2, 3)), std = numbers.std((0, 2, 3), correction=0).",
)
def normalised(subject: OfferSubject) -> None:
    data = loaded(subject).there
    if not data.mean:
        raise DoesNotApply("tokens are not normalised")
    inputs = data.train.inputs
    rows = torch.linspace(0, len(inputs) - 1, min(SOME, len(inputs))).long()
    numbers = inputs[rows].double()
    axes = [0, *range(2, numbers.dim())]
    mean, std = numbers.mean(axes), numbers.std(axes, correction=0)
    given = [torch.tensor(x, dtype=torch.float64) for x in (data.mean, data.std)]
    if any(len(x) not in (1, len(mean)) for x in given):
        raise Broken(f"{len(data.mean)} means for {len(mean)} channels")
    unit = std.where(std > 0, 1.0)
    apart = [(given[0] - mean) / unit, (given[1] - std) / unit]
    off = max(float(one.abs().max()) for one in apart)
    if off <= EXACT:
        return
    lender = _lender(subject.offer.thing.name, data)
    if off > NEAR or lender:
        said = f", the constants of {lender}" if lender else ""
        raise Broken(
            f"mean {_shown(given[0])} and std {_shown(given[1])}{said}; those of its "
            f"training inputs are {_shown(mean)} and {_shown(std)}"
        )


def _lender(name: str, data: Data) -> str | None:
    """The known set that has these constants, on either scale, where it is another."""
    for one in vars(known).values():
        if not isinstance(one, ImageSet) or one.name in (name, *FREE):
            continue
        for scale in (1, 255):
            theirs = [scale * value for value in (*one.mean, *one.std)]
            mine = [*data.mean, *data.std]
            if len(mine) == len(theirs) and all(
                abs(a - b) < 1e-3 * scale for a, b in zip(mine, theirs, strict=True)
            ):
                return one.name
    return None


def _shown(values: Tensor) -> str:
    some = ", ".join(f"{value:.4g}" for value in values[:4].tolist())
    return f"({some}{', ...' if len(values) > 4 else ''})"


@check(
    "dataset",
    what="A small model trains on it for an epoch and is measured.",
    why="That is what every suite does with it.",
    fix="What is said is the engine's; see that inputs are numbers that a model can "
    "take, and that `load` gives the same shapes for train and test.",
)
def trains(subject: OfferSubject) -> None:
    data, dataset = loaded(subject).there, subject.offer.thing
    model = standard(dataset)
    Trial(part_of(dataset, data), model, model).record()
