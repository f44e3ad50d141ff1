"""The textbook losses say what the strategies say, wherever both define the same.

They do for all eleven, if the arbitrary signs of singular vectors are turned alike and
both sides of crd are given the same memories and the same negatives.
"""

from __future__ import annotations

from types import MappingProxyType

import pytest
import textbook
import torch
from textbook import Answers, Asked
from workload import TABLE

from kdbench.api import Batch, Outputs, Tapped
from kdbench.tasks import Task

ITEMS, BATCH, CLASSES = 200, 16, 10
STUDENT = ((6, 8, 8), (10, 4, 4), (12, 2, 2))
TEACHER = ((8, 8, 8), (12, 4, 4), (16, 2, 2))
NAMES = [name for name, _ in TABLE]


def drawn(stages, stream):
    """Answers of a model; maps of mean zero, where kdsvd has to choose its vector."""
    maps = [torch.randn(BATCH, *shape, generator=stream) for shape in stages]
    pooled = maps[-1].mean((2, 3)) + torch.randn(BATCH, stages[-1][0], generator=stream)
    logits = 3 * torch.randn(BATCH, CLASSES, generator=stream)
    return Answers(maps, pooled, logits)


def outputs(answers, wanted):
    features = {f"stage{k + 1}": maps for k, maps in enumerate(answers.stages)}
    features = {**features, "pooled": answers.pooled}
    return Outputs(
        answers.logits,
        MappingProxyType({k: v for k, v in features.items() if k in wanted}),
    )


def tapped(name, answers, wanted, targets):
    shapes = {
        k: tuple(v.shape[1:]) for k, v in outputs(answers, wanted).features.items()
    }
    return Tapped(
        name=name,
        shapes={**shapes, "logits": (CLASSES,)},
        model=torch.nn.Identity(),
        targets=targets,
    )


class Sides:
    """A strategy and its textbook form, on the same answers to the same batch."""

    def __init__(self, host, name):
        stream = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        # the field's kdsvd cannot widen a student's stages
        stages = TEACHER if name == "kdsvd" else STUDENT
        self.student, self.teacher = drawn(stages, stream), drawn(TEACHER, stream)
        for leaf in (*self.student.stages, self.student.pooled, self.student.logits):
            leaf.requires_grad_()
        self.all_targets = torch.randint(0, CLASSES, (ITEMS,), generator=stream)
        self.index = torch.randperm(ITEMS, generator=stream)[:BATCH]
        self.strategy = host.strategy(name).configured({})
        wanted = set(self.strategy.taps)
        if "stages" in wanted:
            wanted |= {"stage1", "stage2", "stage3"}
        self.wanted = wanted
        self.adapters = self.strategy.adapters(
            tapped("student", self.student, wanted, self.all_targets),
            tapped("teacher", self.teacher, wanted, self.all_targets),
        )
        self.textbook = textbook.LOSSES[name](self.student, self.teacher, ITEMS)

    def batch(self):
        return Batch(
            task=Task(outputs=CLASSES),
            inputs=torch.zeros(BATCH, 1),
            targets=self.all_targets[self.index],
            index=self.index,
            labelled=torch.ones(BATCH, dtype=torch.bool),
            students=(outputs(self.student, self.wanted),),
            teachers=(outputs(self.teacher, self.wanted),),
            adapters=self.adapters,
            progress=0.0,
            epoch=0.0,
            generator=torch.Generator().manual_seed(1),
        )

    def ours(self):
        return sum(self.strategy.terms(self.batch()).values())

    def theirs(self, memories=None):
        asked = Asked(self.all_targets[self.index], memories)
        return self.textbook(self.student, self.teacher, asked)

    def gradients(self, loss):
        leaves = (*self.student.stages, self.student.pooled, self.student.logits)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, found, strict=True)
        ]


def agree(sides, ours, theirs):
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)
    pairs = zip(sides.gradients(ours), sides.gradients(theirs), strict=True)
    for own, other in pairs:
        scale = own.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(other / scale, own / scale, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["kd", "at", "sp", "cc", "rkd", "pkt", "nst"])
def test_losses_without_learned_parts_agree(host, name):
    sides = Sides(host, name)
    agree(sides, sides.ours(), sides.theirs())


def test_fitnet_agrees_with_the_same_regressor(host):
    sides = Sides(host, "fitnet")
    convolution, norm, _ = sides.textbook.regressor
    sides.adapters.project.load_state_dict(convolution.state_dict())
    sides.adapters.norm.load_state_dict(norm.state_dict())
    agree(sides, sides.ours(), sides.theirs())


def test_vid_agrees_with_the_same_guesses(host):
    sides = Sides(host, "vid")
    for guess, mean, spread in zip(
        sides.adapters, sides.textbook.means, sides.textbook.spreads, strict=True
    ):
        guess.mean.load_state_dict(mean.state_dict())
        torch.testing.assert_close(guess.spread, spread)
    agree(sides, sides.ours(), sides.theirs())


def test_kdsvd_agrees_once_signs_are_turned(host, monkeypatch):
    sides = Sides(host, "kdsvd")
    found = textbook.singular_vectors

    def turned(maps, k):
        values, vectors = found(maps, k)
        return values, vectors * torch.where(vectors.sum(1, keepdim=True) < 0, -1, 1)

    monkeypatch.setattr(textbook, "singular_vectors", turned)
    agree(sides, sides.ours(), sides.theirs())


def test_crd_agrees_with_the_same_memories(host):
    sides = Sides(host, "crd")
    memory = sides.adapters
    sides.textbook.embed_student.load_state_dict(memory.embeds[0].state_dict())
    sides.textbook.embed_teacher.load_state_dict(memory.embeds[1].state_dict())
    for rows, past in zip(
        (sides.textbook.of_student, sides.textbook.of_teacher), memory.past, strict=True
    ):
        rows.copy_(past)
    before = memory.past.clone()
    batch = sides.batch()
    draws = sides.strategy.negatives
    others = memory.negatives(batch.targets, draws, batch.generator)
    memories = torch.cat((sides.index[:, None], others), dim=1)
    agree(sides, sides.ours(), sides.theirs(memories))
    for rows, past in zip(
        (sides.textbook.of_student, sides.textbook.of_teacher), memory.past, strict=True
    ):
        torch.testing.assert_close(rows, past)
    assert not torch.equal(memory.past, before)


def test_every_strategy_of_the_table_has_its_textbook_form():
    assert list(textbook.LOSSES) == NAMES
