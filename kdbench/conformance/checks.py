"""What a check is, all checks by the kind of thing they look at, and doing one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from types import FrameType
from typing import Any, Literal

from kdbench.api import UserError
from kdbench.engine.faults import reason_of

PARTS = (
    "described",
    "training",
    "gradients",
    "numbers",
    "conduct",
    "repeating",
    "learning",
    "offered",
    "offered_data",
    "offered_models",
    "offered_taps",
    "offered_pairs",
    "offered_measures",
    "offered_rest",
)
"""The modules beside this one that define checks, in the order of their findings."""

LIMIT_S = 300.0
"""How long a check may take, seconds; a toy training takes one or two."""

_KNOWN: dict[str, list[Check]] = {}


class Broken(Exception):
    """What is wrong, in a sentence or two, with the numbers that show it."""


class DoesNotApply(Exception):
    """Why a check has nothing to look at, in one sentence."""


class TookTooLong(KeyboardInterrupt):
    """The check did not end; what lets Ctrl-C through lets this through."""


@dataclass(frozen=True)
class Check:
    """One thing that must hold: for readers of a failure, too."""

    name: str
    kind: str
    what: str
    """What must hold."""
    why: str
    """What goes wrong where it does not."""
    fix: str
    """How it is mended."""
    look: Callable[[Any], None]
    """Raises Broken, DoesNotApply, or whatever the plugin raises."""


@dataclass(frozen=True)
class Finding:
    """What became of one check."""

    check: Check
    status: Literal["passed", "failed", "does not apply"]
    said: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.status == "failed"

    def __str__(self) -> str:
        """A failure in full: what was found, what should be, why, how to mend it."""
        check = self.check
        return (
            f"{check.name}: {self.said}\n"
            f"  expected: {check.what}\n"
            f"  why: {check.why}\n"
            f"  fix: {check.fix}"
        )


def check(
    kind: str, *, what: str, why: str, fix: str
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make a function a check of this kind; its name, with hyphens, is the check's."""

    def keep(look: Callable[[Any], None]) -> Callable[[Any], None]:
        name = look.__name__.replace("_", "-")
        made = Check(name, kind, what, why, fix, look)
        _KNOWN.setdefault(kind, []).append(made)
        return look

    return keep


def checks_of(kind: str) -> tuple[Check, ...]:
    """All checks of this kind: "strategy", "plugin", or a kind that hooks hand in."""
    for part in PARTS:
        import_module(f"kdbench.conformance.{part}")
    return tuple(sorted(_KNOWN.get(kind, ()), key=_place))


def _place(check: Check) -> int:
    """Where its module is among the parts, whatever was imported first."""
    module = check.look.__module__.rpartition(".")[2]
    places = [k for k, part in enumerate(PARTS) if module.startswith(part)]
    return places[0] if places else len(PARTS)


def carried_out(check: Check, subject: Any, limit_s: float = LIMIT_S) -> Finding:
    """What comes out of a check. Whatever the plugin raises is a failure of it."""
    started = perf_counter()
    status: Literal["passed", "failed", "does not apply"] = "passed"
    said = ""
    try:
        with time_limit(limit_s):
            check.look(subject)
    except TookTooLong:
        status, said = "failed", f"did not end within {limit_s:g} s"
    except KeyboardInterrupt:
        raise
    except DoesNotApply as reason:
        status, said = "does not apply", str(reason)
    except (Broken, UserError) as mistake:
        status, said = "failed", str(mistake)
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        status, said = "failed", reason_of(error)
    return Finding(check, status, said, perf_counter() - started)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in what is within after so many seconds.

    Only where the system has an interval timer and this is the main thread; elsewhere
    there is no limit. A limit around this one is put back; one that ends earlier stays.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return
    if 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= seconds:
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    around, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    started = perf_counter()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        left = max(around - (perf_counter() - started), 1e-3) if around else 0.0
        signal.setitimer(signal.ITIMER_REAL, left)
