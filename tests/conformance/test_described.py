"""What a strategy says of itself: each check names its mistake, and no other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from kdbench.api import Strategy
from kdbench.conformance import described
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.targets import find, of_class

MUSEUM = Path(__file__).parents[1] / "museum"
PIECES = {
    "unsigned": "cited",
    "any_type": "typed",
    "no_comment": "documented",
    "not_frozen": "round-trip",
    "takes_negatives": "refuses-nonsense",
    "greek_letter": "plain-names",
}
DESCRIBED = [
    c for c in checks_of("strategy") if c.look.__module__ == described.__name__
]
BY_NAME = {check.name: check for check in DESCRIBED}


def looked_at(kind, name):
    return carried_out(BY_NAME[name], of_class(kind).subject)


def failing(subject):
    return [c.name for c in DESCRIBED if carried_out(c, subject).failed]


@dataclass(frozen=True, kw_only=True)
class Sound(Strategy):
    """Learn from the teacher. Hinton, Vinyals & Dean 2015."""

    name = "sound"

    temperature: float = 4.0  # dimensionless, > 0; the paper
    kd_weight: float = 0.9  # >= 0; the paper
    warmup_epochs: int = 5  # epochs, >= 0; ours
    levels: tuple[float, ...] = (0.5, 1.0)  # shares, [0, 1]; ours
    mode: Literal["mean", "sum"] = "mean"  # over the batch; the paper
    stages: list[int] | None = None  # all where None; ours
    plain: bool = False  # whether without a hint; ours

    def loss(self, batch):
        return {}


@dataclass(frozen=True, kw_only=True)
class Heir(Sound):
    """Nothing new; Doe 2026."""

    name = "heir"
    hint_weight: float = 1.0  # >= 0; ours


def variant(name="variant", doc="Learn. Hinton et al. 2015.", **fields):
    """A strategy with these class attributes; those in pairs are fields."""
    annotated = {k: v[0] for k, v in fields.items() if isinstance(v, tuple)}
    plain = {k: v[1] if isinstance(v, tuple) else v for k, v in fields.items()}
    space = {
        "__module__": __name__,
        "__annotations__": annotated,
        "__doc__": doc,
        "name": name,
        "loss": Sound.loss,
        **plain,
    }
    kind = type("Variant", (Strategy,), space)
    return dataclass(frozen=True, kw_only=True)(kind)


@pytest.mark.parametrize("kind", [Sound, Heir])
def test_a_sound_one_passes(kind):
    subject = of_class(kind).subject
    assert [carried_out(check, subject).status for check in DESCRIBED] == ["passed"] * 6


@pytest.mark.parametrize("piece", PIECES)
def test_the_museums_pieces_fail_one_check_each(piece):
    file = MUSEUM / f"{piece}.py"
    [thing] = [t for t in find(str(file)).things if t.kind == "strategy"]
    assert failing(thing.subject) == [PIECES[piece]]
    assert f"\nchecks: {PIECES[piece]}\n" in file.read_text(encoding="utf-8")


# --- cited ---


@pytest.mark.parametrize(
    "paper",
    [
        "Hinton et al. 2015, arXiv:1503.02531",
        "Ba & Caruana 2014",
        "arXiv:1503.02531",
        "Lee 2013, ICML Workshop; Sohn et al. 2020",
    ],
)
def test_a_paper_is_a_source(paper):
    assert not looked_at(variant(doc="Learn.", paper=paper), "cited").failed


@pytest.mark.parametrize(
    "doc",
    [
        "Learn (Hinton et al. 2015).",
        "Learn as Zhang and Sun (2018) do.",
        "Learn.\n\nO'Neill, Li 2020, section 3.",
        "Learn, arXiv:1503.02531, section 2.",
    ],
)
def test_a_docstring_names_a_source(doc):
    assert not looked_at(variant(doc=doc), "cited").failed


@pytest.mark.parametrize(
    ("doc", "paper"),
    [
        ("Learn.", ""),
        ("Learn what was new. In 2015 this was.", ""),
        ("Learn.", "a paper that I read"),
    ],
)
def test_what_names_no_source(doc, paper):
    finding = looked_at(variant(doc=doc, paper=paper), "cited")
    assert finding.failed
    assert (repr(paper) if paper else "`paper` is empty") in finding.said


def test_a_control_says_in_a_sentence_what_it_is_for():
    sentence = "what labels alone come to"
    control = variant(doc="Learn.", family="control", paper=sentence)
    assert not looked_at(control, "cited").failed
    assert looked_at(variant(doc="Learn.", family="control"), "cited").failed
    assert looked_at(variant(doc="Learn.", paper=sentence), "cited").failed


def test_a_docstring_of_its_own():
    finding = looked_at(variant(doc=None, paper="Hinton et al. 2015"), "cited")
    assert finding.said == "class Variant has no docstring of its own"


# --- typed ---


@pytest.mark.parametrize(
    ("hint", "default", "said"),
    [
        (Any, 1.0, "x: Any is none of"),
        (dict, None, "x: dict is none of"),
        (dict[str, float], None, "is none of"),
        (list, None, "x: list is none of"),
        (list[Any], None, "x: Any is none of"),
        (object, 1, "x: object is none of"),
        (complex, 1, "x: complex is none of"),
        (int, 0.5, "x: the default 0.5 is no int"),
        (int, True, "x: the default True is no int"),
        (float, "1", "x: the default '1' is no float"),
        (float, None, "x: the default None is no float"),
        (str, 1, "x: the default 1 is no str"),
        (tuple[int, int], (1,), "x: the default (1,) is no tuple[int, int]"),
        (Literal["a"], "b", "x: the default 'b' is no Literal['a']"),
    ],
)
def test_what_is_not_typed(hint, default, said):
    finding = looked_at(variant(x=(hint, default)), "typed")
    assert finding.failed
    assert said in finding.said


def test_every_ill_typed_one_is_named():
    finding = looked_at(variant(x=(int, 0.5), y=(float, 1.0), z=(Any, 1)), "typed")
    assert "x: " in finding.said
    assert "z: " in finding.said
    assert "y: " not in finding.said


def test_an_annotation_that_nobody_can_look_up():
    finding = looked_at(variant(x=("Sequenz[int]", 1)), "typed")
    assert finding.failed
    assert "'Sequenz' is not defined" in finding.said


# --- documented ---


@dataclass(frozen=True, kw_only=True)
class Quiet(Sound):
    """Doe 2026."""

    name = "quiet"
    first: float = 1.0
    second: float = 1.0  # from the paper
    third: float = 1.0  # >= 0; the paper


def test_comments_have_a_source():
    finding = looked_at(Quiet, "documented")
    assert finding.said == (
        "first has no comment in its line; "
        "second has 'from the paper', with no source behind a ;"
    )


def test_without_its_source_there_are_no_comments():
    space = {"__module__": "nowhere", "name": "typed_in", "loss": Sound.loss}
    space |= {"__annotations__": {"x": float}, "x": 1.0}
    kind = dataclass(frozen=True, kw_only=True)(type("TypedIn", (Strategy,), space))
    finding = looked_at(kind, "documented")
    assert (finding.status, finding.said) == (
        "does not apply",
        "its source cannot be read",
    )


# --- round-trip ---


def test_what_cannot_be_pickled():
    finding = looked_at(variant(), "round-trip")  # no class of this module
    assert finding.failed
    assert "cannot be pickled" in finding.said


@dataclass(frozen=True, kw_only=True)
class Forgetful(Sound):
    """Doe 2026."""

    name = "forgetful"

    def __setstate__(self, state):
        self.__dict__.update({**state, "temperature": 1.0})


@dataclass(frozen=True, kw_only=True, eq=False)
class Alone(Strategy):
    """Doe 2026."""

    name = "alone"
    loss = Sound.loss


def test_what_is_another_after_pickling():
    finding = looked_at(Forgetful, "round-trip")
    assert finding.said == "after pickling temperature was 4.0 and is 1.0"


def test_what_is_equal_to_nothing_else():
    assert "unequal" in looked_at(Alone, "round-trip").said


@dataclass(frozen=True, kw_only=True)
class Doubling(Sound):
    """Doe 2026."""

    name = "doubling"

    def __post_init__(self):
        object.__setattr__(self, "kd_weight", 2 * self.kd_weight)


def test_what_is_another_when_read_again():
    finding = looked_at(Doubling, "round-trip")
    assert finding.said == "after JSON kd_weight was 1.8 and is 3.6"


# --- refuses-nonsense ---


@pytest.mark.parametrize(
    ("field", "default", "said"),
    [
        ("ce_weight", 1.0, "ce_weight=-0.1 is taken, which must be >= 0"),
        ("ce_weight", 1, "ce_weight=-1 is taken, which must be >= 0"),
        ("temperature", 4.0, "temperature=0.0 is taken, which must be > 0"),
        ("start_temperature", 4, "start_temperature=0 is taken, which must be > 0"),
        ("warmup_epochs", 3, "warmup_epochs=-1 is taken, which must be >= 0"),
    ],
)
def test_nonsense_is_taken(field, default, said):
    given = (type(default), default)
    careless = variant(__post_init__=lambda self: None, **{field: given})
    assert looked_at(careless, "refuses-nonsense").said == said
    assert not looked_at(variant(**{field: given}), "refuses-nonsense").failed


def test_a_refusal_names_what_it_refuses():
    def refuse(self):
        if self.ce_weight < 0:
            raise ValueError("must not be negative")

    silent = variant(__post_init__=refuse, ce_weight=(float, 1.0))
    finding = looked_at(silent, "refuses-nonsense")
    assert finding.failed
    assert "ce_weight=-0.1 is refused without its name" in finding.said

    def refuse_by_another_name(self):
        if self.temperature <= 0:
            raise ValueError("start_temperature must be > 0")

    other = variant(__post_init__=refuse_by_another_name, temperature=(float, 1.0))
    assert looked_at(other, "refuses-nonsense").failed


def test_without_weights_there_is_no_nonsense():
    finding = looked_at(variant(dropout=(float, 0.1)), "refuses-nonsense")
    assert finding.status == "does not apply"


# --- plain-names ---


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("alpha", "..._weight"),
        ("kd_alpha", "..._weight"),
        ("lambda_", "..._weight"),
        ("beta", "..._weight"),
        ("T", "temperature"),
        ("tau", "temperature"),
        ("temp", "temperature"),
    ],
)
def test_letters_are_no_names(name, meant):
    finding = looked_at(variant(**{name: (float, 1.0)}), "plain-names")
    assert finding.said == f"a letter for a name: {name} (call it {meant})"


@pytest.mark.parametrize("name", ["gamma", "k", "template", "alphabet", "teachers"])
def test_other_names_are_left_alone(name):
    assert not looked_at(variant(**{name: (float, 1.0)}), "plain-names").failed


# --- the museum ---


def test_every_check_has_a_piece():
    assert set(PIECES.values()) == set(BY_NAME)
    assert all(re.fullmatch(r"[a-z_]+", piece) for piece in PIECES)
