"""The proof that what was written is the student: both answer every test item."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from kdbench.api import UserError
from kdbench.engine.feed import EVAL_BATCH
from kdbench.exporting.student import TOLERANCE, Student, other_headline
from kdbench.forms.files import Ask, Form
from kdbench.records import Headline
from kdbench.weights import shown


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How an exported network was found to be the student.

    `difference` is the largest of its outputs from the student's over the largest
    output, `other_classes` counts items that it tells apart otherwise, which are ties.
    `value` is its headline, `recorded` the run's.
    """

    runtime: str
    dataset: str
    items: int
    difference: float
    classes: bool
    other_classes: int
    headline: Headline
    value: float
    recorded: float | None

    def sentence(self) -> str:
        same = ""
        if self.classes:
            same = "the same class for each, "
        if self.other_classes:
            same = f"the same class but for {self.other_classes} ties, "
        value, recorded = (
            shown(self.headline, one) for one in (self.value, self.recorded)
        )
        again = "as recorded" if value == recorded else f"recorded as {recorded}"
        return (
            f"{self.runtime} gives the student's answers to all {self.items:,} test "
            f"items of {self.dataset}: {same}outputs within {self.difference:.1e} of "
            f"the largest; {self.headline.title} {value}, {again}"
        )

    def described(self) -> dict[str, Any]:
        plain = {k: v for k, v in asdict(self).items() if k != "headline"}
        return {"sentence": self.sentence(), "headline": self.headline.name, **plain}


def proven(student: Student, form: Form, ask: Ask) -> Proof:
    """What the written network answers to every test item, beside the student.

    The first item is asked about alone, too. Raises UserError where the answers are
    others than the student's.
    """
    batches = [student.stored[:1], *torch.split(student.stored, EVAL_BATCH)]
    found = torch.cat([ask(batch.contiguous()) for batch in batches])
    wanted = torch.cat([student.answers[:1], student.answers])
    runtime = form.runtime()
    if found.shape != wanted.shape:
        raise UserError(
            f"{runtime} gives outputs of shape {tuple(found.shape)}, and the student "
            f"{tuple(wanted.shape)}"
        )
    task, targets = student.dataset.task, student.feed.test_targets
    rows = torch.cat([targets[:1], targets])
    worst, other = 0.0, 0
    for ours, theirs in zip(
        task.split(wanted, rows), task.split(found, rows), strict=True
    ):
        difference = (theirs.outputs - ours.outputs).abs().max()
        share = float(difference / ours.outputs.abs().max().clamp(min=1e-12))
        if not share <= TOLERANCE:
            head = f" of {ours.head.name!r}" if task.heads else ""
            raise UserError(
                f"{runtime} gives other outputs{head} than the student: they are off "
                f"by up to {share:.1e} of the largest, where {TOLERANCE:.0e} is allowed"
            )
        worst = max(worst, share)
        if ours.head.task.kind == "classification":
            classes = [view.outputs[1:].argmax(1) for view in (ours, theirs)]
            other += int((classes[0] != classes[1]).sum())
    why = other_headline(student, found[1:])
    if why:
        raise UserError(f"{runtime}: what it answers {why}")
    return Proof(
        runtime=runtime,
        items=len(student.stored),
        difference=worst,
        other_classes=other,
        headline=student.record.headline,
        value=student.headline(found[1:]),
        recorded=student.record.measures[student.record.headline.name],
        classes=task.kind != "regression",
        dataset=student.dataset.name,
    )
