"""When to stop: time limits, signals, and a clock that jumps."""

from __future__ import annotations

import itertools
import signal
import time
from datetime import UTC, datetime

import pytest

from kdbench.api import UserError
from kdbench.plugins import Host
from kdbench.session import Session
from kdbench.stopping import Stopping, seconds_of

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("9m", 540),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1h1m1s", 3661),
        (" 9M ", 540),
    ],
)
def test_a_time_as_users_write_it(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "-9m", "soon", "9 minutes", "30m1h", "1h30", "1.5h", "9d"]
)
def test_a_time_that_is_none_is_refused_with_examples(text):
    with pytest.raises(UserError, match=r"90s .*, 9m .* or 1h30m"):
        seconds_of(text)


def test_a_limit_counts_from_the_commands_start(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("kdbench.stopping.monotonic", lambda: now)
    stopping = Stopping(10, since=993)
    assert not stopping()
    now = 1003.0
    assert stopping()
    assert stopping.at_limit()
    assert not Stopping()()


# --- signals --------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_asks_and_the_second_stops_at_once(number):
    with Stopping() as stopping, stopping.gently():
        signal.raise_signal(number)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        stopping.interrupted = False  # nothing more to be raised at the end


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_at_other_times_stops_at_once(number):
    with Stopping(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_signal_that_nobody_asked_about_is_not_forgotten():
    with Stopping() as stopping, pytest.raises(KeyboardInterrupt), stopping.gently():
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Stopping() as stopping:
            signal.raise_signal(signal.SIGTERM)  # as under nohup
            assert not stopping()
            assert signal.getsignal(signal.SIGINT) == stopping._signalled
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) != stopping._signalled
    finally:
        signal.signal(signal.SIGTERM, before)


SIGNALLED = """
import os, signal
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

@dataclass(frozen=True, kw_only=True)
class Signalled(Strategy):
    '''Gets signals in its second epoch.'''
    name = "signalled"
    seen = []

    def loss(self, batch):
        self.seen.append(batch.epoch)
        if "HOW" in os.environ and batch.epoch >= 1:
            for _ in range(int(os.environ["HOW"])):
                signal.raise_signal(signal.SIGTERM)
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Signalled]
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_one_signal_checkpoints_and_two_do_not(
    helpers, tmp_path, monkeypatch, capsys, signals
):
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    host = Host(files=[tmp_path / "signalled.py"])
    suite = helpers["suite"](host, pairs=["digits-mlp"], strategies=["signalled"])
    options = helpers["options"](tmp_path)
    monkeypatch.setenv("HOW", str(signals))
    assert Session(host, suite, options).run() == 130
    assert "the same command resumes" in capsys.readouterr().out
    seen = host.strategy("signalled").seen
    monkeypatch.delenv("HOW")
    begun = len(seen)
    assert Session(host, suite, options).train().todo
    whole, one_epoch = 42, 21
    left = len(seen) - begun
    assert left == (one_epoch - 1 if signals == 1 else whole)


# --- time limits ----------------------------------------------------------------------


class After(Stopping):
    """A time limit that is reached when it has been asked so many times."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def __call__(self):
        self.left -= 1
        return self.at_limit()

    def at_limit(self):
        return self.left < 0


@pytest.mark.slow
def test_stopped_again_and_again_in_time_gives_the_same_bits(
    host, helpers, run_digits, tmp_path
):
    """Lockstep, phases before the first epoch, and a loop of its own."""
    strategies = ["kd", "ab[ab_epochs=1]", "split_transfer"]
    changes = {"pairs": ["digits-conv"], "strategies": strategies}
    _, known = run_digits(tmp_path / "whole", **changes)
    suite = helpers["suite"](host, **changes)
    options = helpers["options"](tmp_path)  # no checkpoint is due before a stop
    stops = 0
    while True:
        session = Session(host, suite, options, After(30))
        session.train()
        if not session.late:
            break
        stops += 1
        assert stops < 20
    assert stops >= 3
    records = helpers["by_cell"](tmp_path / "digits")
    assert records.keys() == known.keys()
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](known[cell])
        counts = [x.cost.get("teacher_forwards") for x in (record, known[cell])]
        assert counts[0] == counts[1]  # the pass over the training set is paid once


def test_a_limit_reports_what_is_done_and_says_what_is_open(
    host, helpers, tmp_path, capsys
):
    suite = helpers["suite"](host, pairs=["digits-mlp"], strategies=["scratch", "kd"])
    options = helpers["options"](tmp_path, report=True)
    assert Session(host, suite, options, After(10)).run() == 75
    said = capsys.readouterr().out
    assert "3 runs are open, and models are to be timed; the same command" in said
    assert not (tmp_path / "digits" / "report").exists()
    assert Session(host, suite, options, After(50)).run() == 75  # one epoch is 21
    said = " ".join(capsys.readouterr().out.split())
    assert "stopped at the time limit: 2 runs are open" in said
    assert "1 runs finished, 0 failed" in said
    assert (tmp_path / "digits" / "report" / "report.html").is_file()
    assert not list((tmp_path / "digits").glob("speed-*.json"))


# --- a clock that jumps ---------------------------------------------------------------


@pytest.mark.parametrize("day_s", [86_400, -86_400])
def test_a_clock_that_jumps_changes_nothing(
    host, helpers, run_digits, tmp_path, monkeypatch, day_s
):
    """By a day, forwards or back, whenever it is looked at."""
    changes = {"pairs": ["digits-mlp"], "strategies": ["scratch", "kd"]}
    _, known = run_digits(tmp_path / "steady", **changes)
    real = time.time
    looks = itertools.count()

    def jumping():
        return real() + day_s * next(looks)

    def stamp():
        return datetime.fromtimestamp(jumping(), UTC).isoformat()

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * jumping()))
    monkeypatch.setattr("kdbench.recording.now", stamp)
    suite = helpers["suite"](host, **changes)
    options = helpers["options"](tmp_path / "jumping", checkpoint_every_s=0.0)
    Session(host, suite, options, After(40)).train()
    stopping = Stopping(3600)
    plan = Session(host, suite, options, stopping).train()
    assert plan.todo
    assert not stopping()
    records = helpers["by_cell"](tmp_path / "jumping" / "digits")
    assert records.keys() == known.keys()
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](known[cell])
    assert Session(host, suite, options).train().todo == ()
