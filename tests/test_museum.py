"""Broken plugins: the kit names what is wrong, and nobody else's bits change.

Each piece of tests/museum is a plugin that makes one mistake. Its docstring says which
checks of the kit fail (`checks:`), and what becomes of its run in a suite (`company:`):
finishes, fails, skipped; broken, where the plugin does not load; clashes, where another
has its name, too. Pieces that need a distribution lie in tests/museum/installed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import kdbench_pseudo_label
import kdbench_soft_targets
import pytest

from kdbench.admission import KINDS, SINGULAR
from kdbench.api import UserError
from kdbench.config import PairDefinition, Suite
from kdbench.conformance import checks as kit
from kdbench.conformance.checks import Finding
from kdbench.conformance.examination import examine
from kdbench.conformance.targets import find
from kdbench.conformance.toys import Toys
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.report import write
from kdbench.session import Session
from kdbench.store import load

MUSEUM = Path(__file__).parent / "museum"
INSTALLED = MUSEUM / "installed"
ENDS = ("finishes", "fails", "skipped", "broken", "clashes")
TOLD = {"finishes": "finished", "fails": "failed", "skipped": "skipped"}
OTHERS = ("scratch", "kd", "hard_pseudo_label")
ELSEWHERE = {
    ("compression", "compresses"): "test_compressions",
    ("compression", "own-model"): "test_compressions",
    ("dataset", "trains"): "test_a_dataset_that_no_model_can_be_trained_on_is_told",
    ("executor", "runs-jobs"): "test_executors",
    ("executor", "stops"): "test_executors",
    ("model", "trains"): "test_a_model_that_cannot_be_deployed_does_not_train",
    ("pair", "in-common"): "test_a_pair_of_images_and_texts_has_nothing_in_common",
    ("pair", "trains"): "test_a_pair_whose_student_fails_is_told",
    ("suite", "reads"): "test_suites",
    ("suite", "resolves-names"): "test_suites",
    **{
        (kind, "described"): "test_what_says_nothing_of_itself_is_told"
        for kind in ("compression", "dataset", "executor", "model", "renderer")
    },
}
"""Checks without a piece, by kind and name: the test in
tests/conformance/offered/ that sees each of them fail, and fails without it."""

DOCSTRING = re.compile(
    r"(?P<mistake>.+?)\n\nchecks: (?P<checks>[a-z-]+(, [a-z-]+)*)\n"
    r"company: (?P<company>\w+)\n",
    re.S,
)


@dataclass(frozen=True)
class Piece:
    """A plugin that makes one mistake, and what its docstring expects."""

    path: Path
    mistake: str
    checks: tuple[str, ...]
    company: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def is_installed(self) -> bool:
        return self.path.parent == INSTALLED

    @property
    def target(self) -> str:
        """What `kdbench check` is given."""
        return self.name if self.is_installed else str(self.path)


def read(path: Path) -> Piece:
    found = DOCSTRING.fullmatch(ast.get_docstring(ast.parse(path.read_text())) + "\n")
    assert found, f"{path.name} does not say its mistake, checks and company"
    named = tuple(found["checks"].split(", "))
    return Piece(path, found["mistake"], named, found["company"])


PIECES = {
    path.stem: read(path)
    for path in (*sorted(MUSEUM.glob("*.py")), *sorted(INSTALLED.glob("*.py")))
}
each_piece = pytest.mark.parametrize("name", PIECES)


@contextmanager
def installed() -> Iterator[list[EntryPoint]]:
    """The pieces that are distributions, as if they were installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(INSTALLED))
        yield [
            point
            for one in distributions(path=[str(INSTALLED)])
            for point in one.entry_points
        ]


def loaded(*pieces: Piece) -> Host:
    """These pieces beside the toys, and what everybody compares with."""
    beside = [Toys(), kdbench_soft_targets, kdbench_pseudo_label]
    files = [piece.path for piece in pieces if not piece.is_installed]
    names = {piece.name for piece in pieces}
    with installed() as points:
        found = [point for point in points if point.name in names]
        return Host(files=files, found=found, modules=beside, lenient=True)


@cache
def offers() -> dict[str, dict[str, list[str]]]:
    """What each piece offers, by its name and the kind; nothing where it is broken."""
    host = loaded(*PIECES.values())
    return {p.name: p.offers for p in host.plugins if p.name in PIECES}


@cache
def whole_kit() -> frozenset[tuple[str, str]]:
    return frozenset(
        (kind, check.name)
        for kind in ("plugin", *SINGULAR.values())
        for check in kit.checks_of(kind)
    )


@cache
def claims(name: str) -> frozenset[tuple[str, str]]:
    """The checks of which a piece says that they fail, by kind and name.

    Of a name that several kinds have, that of what it offers; else the plugin's.
    """
    kinds = [SINGULAR[kind] for kind in offers()[name]]
    claimed = set()
    for check in PIECES[name].checks:
        having = [kind for kind in kinds if (kind, check) in whole_kit()]
        claimed.add((having[0] if having else "plugin", check))
    return frozenset(claimed)


@cache
def findings(name: str) -> tuple[tuple[str, Finding], ...]:
    """All that the kit finds of a piece, with the kind of what it looked at."""
    with installed():
        examination = examine(find(PIECES[name].target))
    return tuple(
        (result.thing.kind, finding)
        for result in examination.results
        for finding in result.findings
    )


# --- what the pieces say, and all checks ----


def test_there_are_enough_pieces():
    assert len(PIECES) >= 20
    assert len({piece.mistake for piece in PIECES.values()}) == len(PIECES)


@each_piece
def test_a_piece_says_what_to_expect(name):
    piece = PIECES[name]
    assert piece.company in ENDS
    assert claims(name) <= whole_kit(), "it names a check that the kit does not have"
    offered = [x for kind in offers()[name].values() for x in kind]
    assert (piece.company == "broken") == (not offered)


@pytest.mark.parametrize(("kind", "check"), sorted(whole_kit()))
def test_no_check_can_be_deleted(kind, check, monkeypatch):
    """Without it, what some piece expects is not found."""
    if (kind, check) in ELSEWHERE:
        files = (MUSEUM.parent / "conformance" / "offered").glob("test_*.py")
        named = f"def {ELSEWHERE[kind, check]}("
        assert any(named in file.read_text() for file in files)
        return
    left = [one for one in kit.checks_of(kind) if one.name != check]
    monkeypatch.setitem(kit._KNOWN, kind, left)
    there = {(k, one.name) for k, _ in whole_kit() for one in kit.checks_of(k)}
    assert [name for name in PIECES if not claims(name) <= there]


# --- what the kit says ----


def is_trained(piece: Piece) -> bool:
    """Whether the kit trains a strategy of it many times, which takes a while."""
    return piece.company != "broken" and "kdbench_strategies" in piece.path.read_text()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(piece.name, marks=pytest.mark.slow if is_trained(piece) else ())
        for piece in PIECES.values()
    ],
)
def test_the_kit_names_the_mistake_and_no_other(name):
    failed = [(kind, finding) for kind, finding in findings(name) if finding.failed]
    assert {(kind, finding.check.name) for kind, finding in failed} == claims(name)
    for _, finding in failed:
        said, check = str(finding), finding.check
        assert finding.said
        assert all(text in said for text in (check.what, check.why, check.fix))


# --- a suite in its company ----


def suite(**changes: object) -> Suite:
    known = {
        "name": "company",
        "datasets": ("toy-images",),
        "pairs": ("toy-convnets",),
        "strategies": OTHERS,
        "seeds": 1,
        "recipe": {"epochs": 2, "batch_size": 32, "lr": 0.05},
    }
    return Suite(**{**known, **changes})


def asked(offered: dict[str, list[str]], pair: str, name: str) -> dict[str, object]:
    """What a suite changes to take all that a piece offers; its name, if nothing."""
    names = {kind: tuple(offered.get(kind, ())) for kind in KINDS}
    compressed = tuple(f"kd/{one}" for one in names["compressions"])
    pairs = {
        f"with-{one}": PairDefinition(teacher="convnet_14", student=one)
        for one in names["models"]
    }
    strategies = names["strategies"] if offered else (name,)
    return {
        "strategies": (*OTHERS, *strategies, *compressed),
        "datasets": ("toy-images", *names["datasets"]),
        "pairs": (pair, *names["pairs"], *pairs),
        "define_pairs": pairs,
        "measures": names["measures"],
    }


@pytest.fixture(scope="module")
def train(helpers) -> Callable[..., tuple[int, dict[str, Record]]]:
    """Run a suite in this process: exit code, and records by their cell."""

    def trained(host: Host, out: Path, **changes: object):
        chosen = suite(**changes)
        options = helpers["options"](out, speed=False)
        code = Session(host, chosen, options).run()
        records = load([out / chosen.name]).records
        return code, {f"{r.run.dataset}/{r.run.pair}/{r.run.label}": r for r in records}

    return trained


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory) -> Callable[[str], dict[str, Record]]:
    """The others on this pair, without any piece."""

    @cache
    def records(pair: str) -> dict[str, Record]:
        out = tmp_path_factory.mktemp("alone")
        code, found = train(loaded(), out, pairs=(pair,))
        assert code == 0
        assert len(found) == len(OTHERS) + 1
        return found

    return records


def assert_unchanged(
    helpers, alone: dict[str, Record], records: dict[str, Record]
) -> None:
    """The others have finished, and every bit of them is as it was alone."""
    for cell, record in alone.items():
        before, after = (helpers["bits"](r) for r in (record, records[cell]))
        more = set(after["measures"]) - set(before["measures"])
        for name in more:  # of a measure that a piece offers
            del after["measures"][name]
        for name in set(after["lists"]) - set(before["lists"]):
            del after["lists"][name]
        assert after == before, cell


def tried(train, *given, **changes) -> tuple[int, dict[str, Record]] | UserError:
    try:
        found: tuple[int, dict[str, Record]] = train(*given, **changes)
    except UserError as refusal:
        return refusal
    return found


@pytest.mark.slow
@each_piece
def test_the_others_finish_with_unchanged_bits(name, train, alone, helpers, tmp_path):
    """Whether a suite takes what the piece offers, or only has it loaded."""
    piece, offered = PIECES[name], offers()[name]
    host = loaded(piece)
    pair = "toy-mlps" if "datasets" in offered else "toy-convnets"
    alone(pair)  # first: a teacher kept from the piece's run would have its measures
    code, records = train(host, tmp_path / "unasked", pairs=(pair,))
    assert (code, set(records)) == (0, set(alone(pair)))
    assert_unchanged(helpers, alone(pair), records)
    found = tried(train, host, tmp_path / "asked", **asked(offered, pair, name))
    if isinstance(found, UserError):  # exit code 2
        assert not (tmp_path / "asked").exists()
        assert "strategies" not in offered or piece.company == "clashes"
        assert piece.company in TOLD or name in str(found)
        return
    code, records = found
    assert piece.company in TOLD
    assert_unchanged(helpers, alone(pair), records)
    mine = {cell: r for cell, r in records.items() if cell not in alone(pair)}
    for strategy in offered.get("strategies", ()):
        record = mine[f"toy-images/{pair}/{strategy}"]
        assert record.status == TOLD[piece.company], record.reason
    assert code == (1 if piece.company == "fails" else 0)


def test_all_of_them_at_once_change_no_bit(train, alone, helpers, tmp_path):
    """In one suite beside the others, each ends as it says."""
    host = loaded(*PIECES.values())
    strategies = {
        strategy: PIECES[name].company
        for name, offered in offers().items()
        for strategy in offered.get("strategies", ())
        if PIECES[name].company != "clashes"
    }
    code, records = train(host, tmp_path, strategies=(*OTHERS, *strategies))
    assert_unchanged(helpers, alone("toy-convnets"), records)
    ended = {
        strategy: records[f"toy-images/toy-convnets/{strategy}"].status
        for strategy in strategies
    }
    assert ended == {one: TOLD[company] for one, company in strategies.items()}
    assert code == 1


def test_a_renderer_changes_no_file_of_another(train, tmp_path, monkeypatch):
    """Nor keeps it from being written, whatever it raises or leaves behind."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in PIECES if "renderers" in offers()[name]]
    assert names
    host = loaded(*(PIECES[name] for name in names))
    csv = host.get("renderers", "csv").thing
    train(host, tmp_path)
    results = load([tmp_path / "company"])
    for name in names:
        theirs = [host.get("renderers", x).thing for x in offers()[name]["renderers"]]
        write(results, tmp_path / "alone", [csv])
        with suppress(UserError):
            write(results, tmp_path / name / "report", [*theirs, csv])
        alone = {x.name: x.read_bytes() for x in (tmp_path / "alone").rglob("*.csv")}
        beside = tmp_path / name / "report"
        assert {x: (next(beside.rglob(x))).read_bytes() for x in alone} == alone
