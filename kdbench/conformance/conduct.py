"""Checks of how a strategy treats what it shares with others."""

from __future__ import annotations

from itertools import pairwise

from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.looking import ended
from kdbench.conformance.trainings import Subject
from kdbench.engine.learner import SPOILED
from kdbench.settings import WHOLE

LONGER = 6
"""Epochs of the training that shows whether memory keeps growing."""

EPOCHS = 4
"""So many of its last epochs must each end with more memory than the one before."""


@check(
    "strategy",
    what="It writes to no tensor of the batch: inputs, targets, and the answers of "
    "teachers and students stay as they are.",
    why="All strategies of a group are shown the same tensors, so that a write would "
    "change everybody's numbers. The engine notices x.add_() and x[...] = y and fails "
    "the run; a write by way of .data goes unnoticed and falsifies the others.",
    fix="Make a new tensor: x = x + 1 instead of x += 1, x.masked_fill(...) instead of "
    "x.masked_fill_(...), x.clone() before x[...] = y, F.relu(x) without inplace=True.",
)
def inputs_unchanged(subject: Subject) -> None:
    watch = subject.watched()
    if watch.written:
        found = "; ".join(f"{name} ({where})" for name, where in watch.written.items())
        raise Broken(f"it writes to {found}")
    if watch.failure and SPOILED in watch.failure:
        raise Broken(watch.failure)
    if watch.failure:
        raise DoesNotApply("its training failed, see `trains`")


@check(
    "strategy",
    what="It draws from `batch.generator` alone and seeds nothing: the global "
    "generators of torch, Python and NumPy are after a step where they were before. "
    "`adapters` may draw from torch's, and so may nn.Dropout in them.",
    why="What is drawn from a global generator depends on who drew before, so the "
    "numbers depend on the company and cannot be had again; seeding it gives everybody "
    "after it the same numbers.",
    fix="Write torch.rand(n, generator=batch.generator), torch.randperm(n, "
    "generator=batch.generator), and call no torch.manual_seed, random.seed or "
    "numpy.random.seed.",
)
def own_randomness(subject: Subject) -> None:
    watch = ended(subject)
    for name, where in watch.drawn.items():
        raise Broken(f"{where} it uses the global generator of {name}")


@check(
    "strategy",
    what="It changes no setting of the process: default dtype, grad mode, threads, "
    "deterministic algorithms, precisions, the working directory and such.",
    why="A setting holds for everybody who is trained after it in this process, and "
    "changes their bits. The engine puts it back and fails the run.",
    fix="Ask for what is needed where it is needed: dtype=..., with torch.no_grad():, "
    "with torch.autocast(...):, x.double(); leave threads, devices and precision to "
    "the recipe and the command line.",
)
def settings_unchanged(subject: Subject) -> None:
    refusals = [subject.refusal(toy) for toy in subject.toys]
    for why in refusals:
        if why and WHOLE in why:
            raise Broken(why)
    watch = subject.watched()
    for name, where in watch.changed.items():
        raise Broken(f"{where} it changes {name}")
    if watch.failure and WHOLE in watch.failure:
        raise Broken(watch.failure)
    if watch.failure:
        raise DoesNotApply("its training failed, see `trains`")


@check(
    "strategy",
    what="The tensors that are alive at the end of an epoch do not become more from "
    "epoch to epoch.",
    why="What grows over three epochs fills the memory in three hundred, and takes the "
    "other runs of its process down with it.",
    fix="Keep no batch, answer or loss beyond its step (in a list, a dict by index, a "
    "closure): keep numbers, or detached copies in a buffer of fixed size that "
    "`adapters` returns.",
)
def no_memory_leak(subject: Subject) -> None:
    live = ended(subject).live_bytes
    if len(live) < 2 or live[-1] <= live[-2]:
        return
    live = ended(subject, epochs=LONGER).live_bytes[-EPOCHS - 1 :]
    grown = [after - before for before, after in pairwise(live)]
    if len(grown) == EPOCHS and min(grown) > 0:
        raise Broken(
            f"tensors alive grow by {min(grown)} to {max(grown)} bytes in each of "
            f"{EPOCHS} epochs in a row, to {live[-1]} bytes"
        )
