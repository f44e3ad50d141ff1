"""The memory that a learner's step holds at its peak, whoever trains beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from kdbench.engine.feed import Step
from kdbench.engine.graphs import WARM_UP, Answers, GraphedStep, Trainee, given_to
from kdbench.engine.live_bytes import LiveBytes


def is_weighed(past: int, graphed: GraphedStep | None) -> bool:
    """Whether to do it in the step of a phase with so many steps before it.

    Once, when all that stays is there; not where steps are replayed.
    """
    if graphed is None:
        return past == 1
    return past == WARM_UP + 1 and bool(graphed.obstacle)


@contextmanager
def weighed(trainee: Trainee, step: Step, teachers: Answers) -> Iterator[None]:
    """Tell the trace how many bytes a step holds at its peak; inside is its loss.

    These are weights and buffers, the optimiser's state, what the step is given (batch,
    views, the teachers' answers, and what is made of those once for all), and the most
    of: what lives at once in the forward passes and the loss; what is left of that for
    the backward pass, with the gradients. What the backward pass has for a moment is
    left out, and what a teacher itself holds is nobody's. Nothing is told of a loss
    that raises.
    """
    kept = _kept(trainee)
    own = [teachers[ask].shared for ask in trainee.asks]
    with LiveBytes() as live:
        for shared in own:
            shared.stopwatch = _apart(live, shared.stopwatch)
        yield
    given = [*given_to(trainee, step, teachers).values()]
    given += [value for shared in own for value in shared.asked()]
    groups = trainee.optimiser.param_groups
    gradients = _bytes(p for group in groups for p in group["params"])
    # parts of what is kept of the whole training set, perhaps: not their storages
    whole = kept + _bytes(given) + max(live.peak, live.now + gradients)
    trainee.trace.holds(whole)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _kept(trainee: Trainee) -> int:
    """Bytes of all that stays from step to step; what is shared counts once."""
    states = chain.from_iterable(s.values() for s in trainee.optimiser.state.values())
    tensors = [x for x in states if isinstance(x, Tensor)]
    for module in (trainee.modules, trainee.adapters):
        if module is not None:
            tensors += [*module.parameters(), *module.buffers()]
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
    return sum(storage.nbytes() for storage in storages.values())


def _apart(
    live: LiveBytes, stopwatch: Callable[[], Callable[[], object]]
) -> Callable[[], Callable[[], object]]:
    """This stopwatch; while it runs, nothing counts: who comes first makes it for all.

    What is made counts among what is given.
    """

    def start() -> Callable[[], object]:
        elapsed = stopwatch()
        live.paused = True

        def stop() -> object:
            live.paused = False
            return elapsed()

        return stop

    return start
