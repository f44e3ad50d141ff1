"""How long the forward passes of a strategy's adapters take, within its loss."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from kdbench.engine.clock import Moment
from kdbench.engine.trace import Trace


class AdapterTime:
    """Charges the outermost call of any part of the adapters to "adapters".

    Its time is no longer the loss's. Only while `running`: adapters may be part of the
    network that is deployed, too.
    """

    def __init__(self, trace: Trace, adapters: nn.Module | None, apart: bool = True):
        """Not `apart`, it is left with the loss, and unknown."""
        self.running = False
        self._trace = trace
        self._depth = 0
        self._started: Moment = 0.0
        if adapters is not None and not apart:
            trace.cost["adapters_s"] = math.nan
        watched = adapters.modules() if adapters is not None and apart else ()
        self._hooks = [
            hook
            for part in watched
            for hook in (
                part.register_forward_pre_hook(self._enter),
                part.register_forward_hook(self._leave, always_call=True),
            )
        ]

    def _enter(self, *_: Any) -> None:
        if self.running:
            self._depth += 1
            if self._depth == 1:
                self._started = self._trace.clock.now()

    def _leave(self, *_: Any) -> None:
        if self.running:
            self._depth -= 1
            if self._depth == 0:
                time = self._trace.clock.since(self._started)
                self._trace.spend("adapters", time)
                self._trace.spend("loss", time, -1)

    def __deepcopy__(self, _: object) -> AdapterTime:
        """Copied adapters are timed with the others."""
        return self

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
