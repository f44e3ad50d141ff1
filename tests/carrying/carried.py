"""Sessions on bare machines, and what is in their folders, for tests of states."""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.carrying.state import read_index
from kdbench.session import Session
from kdbench.stopping import Stopping
from kdbench.store import read_record

QUICK = {"pairs": ["digits-mlp"], "strategies": ["scratch", "kd"]}
LIMIT = 100_000


class After(Stopping):
    """A time limit, or Ctrl-C, once it has been asked so many times."""

    def __init__(self, times, *, interrupts=False):
        super().__init__()
        self.left = times
        self._interrupts = interrupts

    def __call__(self):
        self.left -= 1
        if self._interrupts and self.left < 0:
            self.interrupted = True
        return super().__call__()

    def at_limit(self):
        return self.left < 0 and not self._interrupts


@dataclass
class Machines:
    """A session on a fresh machine each time: an empty folder, an empty cache."""

    host: object
    helpers: dict
    folder: object
    monkeypatch: object
    count: int = 0

    def bare(self):
        self.count += 1
        out = self.folder / f"machine_{self.count}"
        self.monkeypatch.setenv("KDBENCH_CACHE", str(out / "cache"))
        return out

    def session(self, out, stopping=None, suite=None, **values):
        suite = suite or self.helpers["suite"](self.host, **QUICK)
        options = self.helpers["options"](out, **{"speed": False, **values})
        return Session(self.host, suite, options, stopping)


def members(folder):
    return set(read_index(folder).sizes)


def contents(folder):
    found = {p.relative_to(folder): p for p in folder.rglob("*")}
    return {k: p.read_bytes() for k, p in found.items() if p.is_file()}


def ids(folder):
    """Ids of the runs in a state: the teacher's, then the students'."""
    records = [read_record(p) for p in folder.glob("????????????.json")]
    return [r.id for r in sorted(records, key=lambda r: not r.run.is_teacher)]


def stopped(machines, folder, times, **values):
    """The suite's folder on a bare machine that went on from a state."""
    out = machines.bare()
    machines.session(out, After(times), import_state=folder, **values).run()
    return out


def raising(error):
    raise error
