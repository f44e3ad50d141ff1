"""What a check is, how one is carried out, and that none goes on for ever."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from time import monotonic, sleep

import pytest

from kdbench.admission import SINGULAR
from kdbench.api import UserError
from kdbench.conformance import checks
from kdbench.conformance.checks import (
    Broken,
    Check,
    DoesNotApply,
    TookTooLong,
    carried_out,
    checks_of,
    time_limit,
)

STRATEGY = [
    *("cited", "typed", "documented", "round-trip", "refuses-nonsense", "plain-names"),
    *("trains", "finite-terms", "teacher-frozen", "student-mode"),
    *("gradients", "adapters-kept", "every-tap-counts", "weights-scale"),
    *("batch-of-one", "two-classes", "extreme-logits", "precisions", "cross-family"),
    *("inputs-unchanged", "own-randomness", "settings-unchanged", "no-memory-leak"),
    *("same-seed", "company", "resume", "learns"),
]
KINDS = ("plugin", *SINGULAR.values())


def made(look):
    return Check("a-check", "strategy", "What.", "Why.", "Fix.", look)


def raising(error):
    def look(_subject):
        raise error

    return made(look)


def forever(_subject):
    """Long enough; were there no limit, the test would fail and not hang."""
    for _ in range(1000):
        sleep(0.01)


def test_what_a_check_comes_to():
    seen = []
    finding = carried_out(made(seen.append), "the subject")
    assert (finding.status, finding.said, seen) == ("passed", "", ["the subject"])
    assert not finding.failed

    finding = carried_out(raising(DoesNotApply("it has no taps")), None)
    assert (finding.status, finding.said) == ("does not apply", "it has no taps")
    assert not finding.failed

    for mistake in (Broken("0.3 is not 0.1"), UserError("0.3 is not 0.1")):
        finding = carried_out(raising(mistake), None)
        assert finding.failed
        assert finding.said == "0.3 is not 0.1"


@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), SystemExit("odd"), GeneratorExit("odd"), OSError("odd")],
)
def test_whatever_a_plugin_raises_is_a_failure(error):
    finding = carried_out(raising(error), None)
    assert finding.failed
    assert type(error).__name__ in finding.said
    assert "odd" in finding.said


def test_an_interrupt_is_the_users():
    with pytest.raises(KeyboardInterrupt):
        carried_out(raising(KeyboardInterrupt()), None)


def test_a_failure_says_what_why_and_how_to_mend_it():
    said = str(carried_out(raising(Broken("it is 3")), None))
    assert said == ("a-check: it is 3\n  expected: What.\n  why: Why.\n  fix: Fix.")


def test_it_is_timed():
    finding = carried_out(made(lambda _: sleep(0.05)), None)
    assert 0.05 <= finding.seconds < 5


def test_a_check_that_does_not_end_fails():
    began = monotonic()
    finding = carried_out(made(forever), None, limit_s=0.2)
    assert finding.failed
    assert finding.said == "did not end within 0.2 s"
    assert monotonic() - began < 5


def test_no_plugin_swallows_the_limit_as_an_exception():
    def look(_subject):
        with suppress(Exception):
            forever(None)

    assert carried_out(made(look), None, limit_s=0.2).failed


@pytest.fixture
def alarm():
    """No limit around, whoever runs the tests; what was there is put back."""
    handler = signal.getsignal(signal.SIGALRM)
    left, every = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, left, every)


@pytest.mark.usefixtures("alarm")
def test_nothing_is_left_of_a_limit():
    def outer(*_):
        raise AssertionError

    signal.signal(signal.SIGALRM, outer)
    with time_limit(5):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 4
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is outer
    with pytest.raises(TookTooLong), time_limit(0.05):
        forever(None)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is outer


@pytest.mark.usefixtures("alarm")
def test_a_limit_within_a_limit():
    reached = []
    began = monotonic()

    def work():
        with pytest.raises(TookTooLong), time_limit(0.1):
            forever(None)
        reached.append(monotonic() - began)
        forever(None)  # the outer one goes on, less the time that has gone

    with pytest.raises(TookTooLong), time_limit(0.4):
        work()
    assert reached[0] < 0.35
    assert 0.35 < monotonic() - began < 3


@pytest.mark.usefixtures("alarm")
def test_a_longer_limit_within_does_not_put_off_a_shorter_one():
    began = monotonic()
    with pytest.raises(TookTooLong), time_limit(0.2), time_limit(60):
        forever(None)
    assert monotonic() - began < 5


def test_without_the_main_thread_there_is_no_limit():
    found = []

    def work():
        found.append(carried_out(made(lambda _: sleep(0.3)), None, limit_s=0.05))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].status == "passed"


def test_the_name_is_the_functions(monkeypatch):
    monkeypatch.setattr(checks, "_KNOWN", {})

    @checks.check("strategy", what="What.", why="Why.", fix="Fix.")
    def keeps_its_word(subject):
        raise Broken(subject)

    [found] = checks._KNOWN["strategy"]
    assert (found.name, found.kind) == ("keeps-its-word", "strategy")
    assert (found.what, found.why, found.fix) == ("What.", "Why.", "Fix.")
    with pytest.raises(Broken, match="itself"):
        keeps_its_word("itself")  # still a plain function


def test_strategies_have_all_checks_in_order():
    assert [check.name for check in checks_of("strategy")] == STRATEGY


def test_the_order_does_not_depend_on_what_was_imported_first(monkeypatch):
    known = checks_of("strategy")
    first = sorted(known, key=lambda check: check.look.__module__)
    assert [*known] != first
    monkeypatch.setattr(checks, "_KNOWN", {"strategy": first})
    assert checks_of("strategy") == known


def test_every_kind_that_is_handed_in_has_checks():
    for kind in KINDS:
        assert checks_of(kind), kind
    assert checks_of("nothing") == ()


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_is_explained(kind):
    found = checks_of(kind)
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.kind == kind
        for text in (check.what, check.why, check.fix):
            assert text.endswith((".", "`", '"')), check.name
            assert len(text) < 400, check.name
