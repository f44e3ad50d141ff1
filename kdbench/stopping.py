"""When a command must stop: its time limit, Ctrl-C, a batch system's SIGTERM."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

from kdbench.api import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNITS = (3600, 60, 1)
RESUMES = "the same command resumes"


def seconds_of(text: str) -> float:
    """The seconds of a time as users write it: 90, 90s, 9m, 1h30m. Else UserError."""
    plain = text.strip().lower()
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", plain)
    found = [plain] if plain.isdecimal() else list(parts.groups() if parts else [])
    units = UNITS[-1:] if plain.isdecimal() else UNITS
    seconds = sum(int(n) * unit for n, unit in zip(found, units, strict=False) if n)
    if not seconds:
        raise UserError(
            f"--time-limit {text!r} is not understood; give a time above 0 such as 90 "
            "or 90s (seconds), 9m (minutes) or 1h30m"
        )
    return float(seconds)


def late_words(left: int, *, timed: bool) -> str:
    """What is said at the time limit; not `timed` where models are still to be."""
    what = f"{left} runs are open" if left else "every run has ended"
    more = "" if timed else ", and models are to be timed"
    return f"stopped at the time limit: {what}{more}; {RESUMES}"


class Stopping:
    """Asked whether to stop; a context in which Ctrl-C and SIGTERM are the same.

    Within `gently()` the first of them lets what runs be checkpointed and end, and the
    second stops at once; elsewhere the first one stops at once. The clock is the
    monotonic one, which cannot jump.
    """

    def __init__(self, limit_s: float | None = None, since: float | None = None):
        """`since` is the monotonic time from which `limit_s` counts; None is now."""
        began = monotonic() if since is None else since
        self._end = None if limit_s is None else began + limit_s
        self.interrupted = False
        self._gentle = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self.interrupted or self.at_limit()

    def at_limit(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and monotonic() >= self._end

    @contextmanager
    def gently(self) -> Iterator[None]:
        """Raises KeyboardInterrupt at its end where a signal came and nobody asked."""
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False
        if self.interrupted:
            raise KeyboardInterrupt

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as in nohup
                    self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted or not self._gentle:
            raise KeyboardInterrupt
        self.interrupted = True
