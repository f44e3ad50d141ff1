"""A trained student as measures see it: its answers, beside its teacher's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Finished, Model
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import predict

SAMPLE = 256
"""Items of the batch that a model is timed with."""

Change = Callable[[Tensor], Tensor]


def sample_of(dataset: Dataset, feed: Feed) -> Tensor:
    """The first test items, normalised; of tokens, texts of full length."""
    if dataset.vocabulary:
        return dataset.example(SAMPLE).to(feed.device)
    return feed.sample(SAMPLE)


def seen(
    spec: Model,
    student: nn.Module,
    dataset: Dataset,
    feed: Feed,
    teacher: tuple[Model, nn.Module] | None,
    teacher_logits: Tensor | None,
) -> Finished:
    """The deployed student, measured on the test set and on what is held out."""

    def answers(change: Change) -> Tensor:
        return predict(student, feed, feed.test_batches(change))

    def features() -> tuple[Tensor, Tensor] | None:
        if teacher is None:
            return None
        ours = features_of(spec, student, feed)
        theirs = None if ours is None else features_of(*teacher, feed)
        return None if ours is None or theirs is None else (ours, theirs)

    held_out = len(feed.validation_targets) > 0
    return Finished(
        model=student,
        task=dataset.task,
        device=str(feed.device),
        sample=sample_of(dataset, feed),
        logits=predict(student, feed),
        targets=feed.test_targets,
        teacher_logits=teacher_logits,
        validation_logits=predict(student, feed, feed.validation_batches())
        if held_out
        else None,
        validation_targets=feed.validation_targets if held_out else None,
        answers=answers,
        features=features,
        probabilities=spec.probabilities,
        teacher_probabilities=teacher is None or teacher[0].probabilities,
    )


def features_of(spec: Model, module: nn.Module, feed: Feed) -> Tensor | None:
    """What the classifier is handed for the test set, (N, D) on the CPU.

    None where the network has no such layer, as one that a strategy deploys may.
    """
    place = dict(module.named_modules()).get(spec.classifier)
    if place is None or place is module:  # a tree has none: its path is ""
        return None
    caught: list[Tensor] = []

    def catch(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        caught.append(args[0].detach().float().flatten(1).cpu())

    handle = place.register_forward_pre_hook(catch)
    try:
        with torch.no_grad():
            for part in feed.test_batches():
                module(part)
    finally:
        handle.remove()
    return torch.cat(caught) if caught else None
