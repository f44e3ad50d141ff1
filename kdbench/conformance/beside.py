"""What stands beside an offer on trial: made-up data and standard models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdbench.api import Data, Dataset, Model, Shape, Split, UserError
from kdbench.conformance.checks import DoesNotApply, TookTooLong
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.toys import CLASSES, Toys, patterned
from kdbench.conformance.tried import PART, ours
from kdbench.plugins import Host
from kdbench.tasks import Task

T = TypeVar("T")

FEW = 32
"""Items of made-up data where they are large."""

PHOTO = (3, 32, 32)

FIRST = ("toy-images", "toy-vectors", "toy-tokens")
"""Toys on which any model is tried first."""


def once(make: Callable[[OfferSubject], T]) -> Callable[[OfferSubject], T]:
    """`make`, done once for an offer; what it gave goes when the next offer comes.

    What did not end is not begun again by the next check.
    """
    of: list[object] = []
    found: list[T | TookTooLong] = []

    @wraps(make)
    def kept(subject: OfferSubject) -> T:
        mine = [subject.offer.thing, subject.host]
        if not of or any(one is not other for one, other in zip(of, mine, strict=True)):
            of[:], found[:] = mine, []
        if not found:
            try:
                found.append(make(subject))
            except TookTooLong as late:
                found.append(late)
                raise
        if isinstance(found[0], TookTooLong):
            raise DoesNotApply("an earlier check of it did not end")
        return found[0]

    return kept


# --- data and models ------------------------------------------------------------------


def homes(host: Host) -> Iterator[Dataset]:
    """Made-up data of every form there is: toys, then as the host's datasets are."""
    forms: dict[tuple[Shape, int], Dataset] = {}
    for one in map(toy, FIRST):
        forms[one.input_shape, one.vocabulary] = one
    forms[PHOTO, 0] = patterned("toy-photos", PHOTO, CLASSES, FEW)
    yield from forms.values()
    for name in host.names("datasets"):
        with suppress(UserError):  # a name that two plugins offer
            dataset = host.dataset(name)
            shape, words = dataset.input_shape, dataset.vocabulary
            if (shape, words) not in forms:
                forms[shape, words] = _as(dataset)
                yield forms[shape, words]


def toy(name: str) -> Dataset:
    """The toy dataset of this name."""
    return next(d for d in Toys().kdbench_datasets() if d.name == name)


def _as(dataset: Dataset) -> Dataset:
    """Made-up data of the form of this dataset."""
    shape, words = dataset.input_shape, dataset.vocabulary
    name = f"like-{dataset.name}"
    if not words:
        return patterned(name, shape, CLASSES, FEW)
    return Dataset(
        name=name,
        summary="random tokens",
        source="made up",
        task=Task(outputs=2),
        input_shape=shape,
        load=partial(_texts, length=shape[0], words=words),
        embedded=True,
        vocabulary=words,
    )


def _texts(
    data_dir: Path | None,  # noqa: ARG001 - nothing is read
    download: bool,  # noqa: ARG001
    length: int,
    words: int,
) -> Data:
    stream = torch.Generator().manual_seed(0)

    def split() -> Split:
        inputs = torch.randint(1, words, (FEW, length), generator=stream)
        return Split(inputs=inputs, targets=torch.arange(FEW) % 2)

    return Data(train=split(), test=split())


def home_of(
    host: Host, models: Sequence[Model]
) -> tuple[Dataset | None, dict[str, str]]:
    """Made-up data that all these models take, and why they do not take others."""
    reasons = {}
    for dataset in homes(host):
        for model in models:
            why = why_not(dataset, model)
            if why is not None:
                shape = "x".join(map(str, dataset.input_shape))
                kind = "tokens" if dataset.vocabulary else "inputs"
                reasons[f"{model.name}, {kind} {shape}"] = why
                break
        else:
            return dataset, reasons
    return None, reasons


def why_not(dataset: Dataset, model: Model) -> str | None:
    """Why the model does not take the dataset's items, or None."""
    try:
        with torch.device("meta"), torch.no_grad():
            dataset.build(model).eval()(dataset.example(2))
    except Exception as error:  # noqa: BLE001 - a model may refuse in any way
        return f"{type(error).__name__}: {error}"
    return None


class Words(nn.Module):
    """(B, L) tokens -> (B, outputs): the mean of the words' vectors, classified."""

    def __init__(self, _input_shape: Shape, outputs: int, vocabulary: int):
        super().__init__()
        self.vectors = nn.EmbeddingBag(vocabulary, 8)
        self.classifier = nn.Linear(8, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.vectors(tokens))
        return logits


def standard(dataset: Dataset) -> Model:
    """A small model that takes the dataset's items."""
    if dataset.vocabulary:
        return Model(
            name="words",
            summary="the mean of the words' vectors",
            build=Words,
            taps={"pooled": "classifier:input"},
            classifier="classifier",
            tokens=True,
        )
    images = len(dataset.input_shape) == len(PHOTO)
    return ours().model("convnet_6" if images else "mlp_5")


def part_of(dataset: Dataset, data: Data) -> Dataset:
    """A dataset of some of its items, from all over it."""

    def some(split: Split) -> Split:
        last = len(split.targets) - 1
        rows = torch.linspace(0, last, min(PART, last + 1)).long()
        return Split(inputs=split.inputs[rows], targets=split.targets[rows])

    few = replace(data, train=some(data.train), test=some(data.test))
    return replace(dataset, load=partial(_given, data=few))


def _given(data_dir: Path | None, download: bool, data: Data) -> Data:  # noqa: ARG001
    return data
