"""Checks of a pair and of a suite: every name is there, and what they name fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdbench.api import Dataset, Model, Pair, UserError
from kdbench.choices import choose
from kdbench.config import Suite, read_suite
from kdbench.conformance.beside import home_of, once
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.tried import Trial, everyone
from kdbench.measure.size import size_of
from kdbench.plugins import Host


@check(
    "pair",
    what="Teachers, students and assistants are tuples of names of models that there "
    "are; at least one teacher and one student.",
    why="A suite with this pair is refused otherwise.",
    fix='Write teachers=("big",), students=("small",), with the comma, and names that '
    "`kdbench list models` shows.",
)
def resolves(subject: OfferSubject) -> None:
    pair = subject.offer.thing
    for side in ("teachers", "students", "assistants"):
        names = getattr(pair, side)
        if isinstance(names, str) or not isinstance(names, tuple | list):
            raise Broken(f"{side} is {names!r}; write ({names!r},)")
        if not names and side != "assistants":
            raise Broken(f"it has no {side}")
        for name in names:
            subject.host.model(name, f"{side} of pair {pair.name!r}")


def _sides(subject: OfferSubject) -> list[Model]:
    """All its models, the leading teacher and student first."""
    pair: Pair = subject.offer.thing
    names = (pair.teachers[:1], pair.students[:1])
    more = (pair.teachers[1:], pair.students[1:], pair.assistants)
    try:
        return [subject.host.model(n) for side in (*names, *more) for n in side]
    except UserError:
        raise DoesNotApply("a name of it is unknown, see `resolves`") from None


@once
def _home(subject: OfferSubject) -> tuple[Dataset | None, dict[str, str]]:
    return home_of(subject.host, _sides(subject))


def _dataset(subject: OfferSubject) -> Dataset:
    dataset = _home(subject)[0]
    if dataset is None:
        raise DoesNotApply("its models have no data in common, see `in-common`")
    return dataset


@check(
    "pair",
    what="There are data that all its models can be built for.",
    why="Teacher and student see the same batches: a pair of a model of images and one "
    "of vectors can be trained on nothing.",
    fix="Pair models that read the same inputs, and raise ValueError in `build` only "
    "for inputs that a model cannot take.",
)
def in_common(subject: OfferSubject) -> None:
    dataset, reasons = _home(subject)
    if dataset is None:
        said = "; ".join(f"{where}: {why}" for where, why in reasons.items())
        raise Broken(f"none of the data there are fit all its models ({said})")


@check(
    "pair",
    what="The student is not larger than the teacher: it has fewer or as many "
    "parameters, or multiply-accumulates.",
    why="Distillation is to make models smaller. Where both numbers are larger, the "
    "two sides were most likely swapped, and what is deployed has grown.",
    fix="Swap teachers and students, or choose a smaller student; one of the teacher's "
    "own size is fine (born-again networks).",
)
def smaller_student(subject: OfferSubject) -> None:
    dataset = _dataset(subject)
    pair: Pair = subject.offer.thing
    teacher, student = (
        size_of(subject.host.model(names[0]), dataset)
        for names in (pair.teachers, pair.students)
    )
    if None in (*teacher, *student):
        raise DoesNotApply("the size of one of them is known only when it has learned")
    counts: list[tuple[Any, Any]] = list(zip(teacher, student, strict=True))
    if all(ours > theirs for theirs, ours in counts):
        said = [
            f"{ours:,.0f} {what} to the teacher's {theirs:,.0f}"
            for what, (theirs, ours) in zip(
                ("parameters", "multiply-accumulates"), counts, strict=True
            )
        ]
        raise Broken(f"the student {pair.students[0]} has {' and '.join(said)}")


@check(
    "pair",
    what="Its teacher trains for an epoch on made-up data, and its student beside it.",
    why="That is what every suite does with it, by the engine's own loop.",
    fix="What is said is the engine's, of the model that it names.",
)
def trains(subject: OfferSubject) -> None:
    dataset = _dataset(subject)
    teacher, student = (
        subject.host.model(names[0])
        for names in (subject.offer.thing.teachers, subject.offer.thing.students)
    )
    Trial(dataset, teacher, student).record()


@once
def _suite(subject: OfferSubject) -> Suite:
    return read_suite(subject.offer.thing.path)


@check(
    "suite",
    what="Its file is there and is a suite, and its name is the file's.",
    why="Results lie in a folder of the suite's name; a file that cannot be read is "
    "found out by whoever runs it.",
    fix="Give the path of a TOML file in the package (Path(__file__).parent / ...), "
    "and see that the build packs it.",
)
def reads(subject: OfferSubject) -> None:
    name = _suite(subject).name
    if name != subject.offer.thing.name:
        raise Broken(f"it is offered as {subject.offer.thing.name!r} and says {name!r}")


@check(
    "suite",
    what="Every dataset, pair, model, strategy, compression and measure that it names "
    "is in some installed plugin, and strategies take the values that it gives them.",
    why="A run of it is refused otherwise, before anything starts.",
    fix="Mend the name, or install what offers it; where that is no dependency of "
    "yours, say `requires = [...]` in the suite.",
)
def resolves_names(subject: OfferSubject) -> None:
    try:
        suite = _suite(subject)
    except UserError:
        raise DoesNotApply("it cannot be read, see `reads`") from None
    here = dict(_unknown(suite, subject.host))
    if not here:
        return
    elsewhere = dict(_unknown(suite, everyone()))
    wrong = [elsewhere[name] for name in here if name in elsewhere]
    if wrong:
        raise Broken("; ".join(wrong))


def _unknown(suite: Suite, host: Host) -> Iterator[tuple[str, str]]:
    """Each name that is not there, and what is said of it."""
    where = f"suite {suite.name!r}"
    wanted = [("measures", name) for name in suite.measures]
    for pair in suite.define_pairs.values():
        both = pair.named("")
        sides = (*both.teachers, *both.students, *both.assistants)
        wanted += [("models", name) for name in sides]
    for part in suite.parts:
        own = [name for name in part.pairs if name not in suite.define_pairs]
        wanted += [("datasets", name) for name in part.datasets]
        wanted += [("pairs", name) for name in own]
        wanted += [("models", name) for name in part.recipe.lr_by_model]
    for kind, name in wanted:
        try:
            host.get(kind, name, where)
        except UserError as error:
            yield f"{kind} {name}", str(error)
    for part in suite.parts:
        for text in part.strategies:
            try:
                choose([text], host, where, part.compress)
            except UserError as error:
                yield text, str(error)
