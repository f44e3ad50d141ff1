"""What is known of a strategy from its source: for `kdbench show`, docs and reports.

`python -m kdbench.catalogue` prints docs/strategies.md.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdbench.api import Phase, Strategy, UserError
from kdbench.cards import Card, Hyperparameter
from kdbench.citations import Reference, cited, shipped
from kdbench.combining import WEIGHT, Combination
from kdbench.plugins import Host, Offer, code_of
from kdbench.records import Run
from kdbench.store import Results, write_record

OPENING = """# Strategies

Every strategy of the bundled plugins: paper, formula, hyper-parameters with their
defaults and where these come from, what it taps and what it costs beyond the student's
own training. Generated from the docstrings by `make docs`; do not edit.

`kdbench show NAME` prints the same for any installed strategy. How to write sums
(`kd+fitnet`), ramps (`kd[temperature=4->1]`) and presets (`dkd@authors`) stands in
[selections.md](selections.md).
"""


def field_comments(strategy: type[Strategy]) -> dict[str, str]:
    """The comment behind each hyper-parameter: its unit, range and source."""
    comments: dict[str, str] = {}
    if issubclass(strategy, Combination):
        for part in strategy.kinds:
            own = field_comments(part) | {WEIGHT: "factor on the part's terms, >= 0"}
            comments |= {f"{part.name}.{name}": text for name, text in own.items()}
        return comments
    for kind in reversed(strategy.__mro__):
        try:
            source = inspect.getsource(kind)
        except (OSError, TypeError):  # typed in, not written down; built in
            continue
        found = re.findall(r"^ {4}(\w+)\s*:[^#\n]*#\s*(.+)$", source, re.MULTILINE)
        comments |= dict(found)
    return {name: comments[name] for name in strategy.parameters() if name in comments}


def formula(strategy: type[Strategy]) -> str:
    """The docstring of the strategy's module, where its formula stands."""
    if issubclass(strategy, Combination):
        return "\n\n".join(formula(part) for part in strategy.kinds)
    module = inspect.getmodule(strategy)
    return inspect.cleandoc(module.__doc__ or "") if module else ""


def tasks_of(strategy: type[Strategy]) -> tuple[str, ...]:
    """The tasks that it is defined for, with its defaults; of a sum, all parts'."""
    return strategy.configured({}).tasks


def papers_of(strategy: type[Strategy]) -> tuple[Reference, ...]:
    """The papers that it cites; what its plugin ships says more than their names."""
    kinds = strategy.kinds if issubclass(strategy, Combination) else (strategy,)
    found = (cited(kind.paper, shipped(kind.__module__)) for kind in kinds)
    return tuple(dict.fromkeys(paper for papers in found for paper in papers))


def references(strategy: type[Strategy]) -> tuple[str, ...]:
    """The papers that it cites, as BibTeX entries."""
    return tuple(paper.bibtex for paper in papers_of(strategy))


def taps_of(strategy: type[Strategy]) -> str:
    """What it reads of both sides, with its defaults."""
    taps = strategy.configured({}).taps
    return ", ".join(("logits", *(tap for tap in taps if tap != "logits")))


def extra_cost(strategy: type[Strategy]) -> str:
    """What it asks for beyond a student and its labels, with its defaults, in words."""
    one = strategy.configured({})
    parts = [_count(one.teachers, "teacher")] if one.teachers else ["no teacher"]
    if one.students > 1:
        parts.append(f"{one.students} students are trained")
    if one.assistants:
        parts.append(_count(one.assistants, "assistant"))
    if strategy.adapters is not Strategy.adapters:
        parts.append("adapters")
    extra = "learns from" if one.student_views else "one more pass over"
    parts += [f"{extra} the view {view!r}" for view in one.views]
    if strategy.drives_itself():
        return "; ".join([*parts, "a loop of its own, not in lockstep"])
    phases = one.phases()
    parts += [f"phase {p.name!r}: {_length(p)}" for p in phases[:-1]]
    if phases[-1].times != 1:
        parts.append(f"trains for {_length(phases[-1])}")
    return "; ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _length(phase: Phase) -> str:
    if phase.epochs is not None:
        return _count(phase.epochs, "epoch")
    return f"{phase.times:g} times the recipe's epochs"


def presets_of(strategy: type[Strategy]) -> str:
    """Presets by name, and how many pairs each has settings for."""
    return ", ".join(
        f"{strategy.name}@{name} ({_count(len(pairs), 'pair')})"
        for name, pairs in strategy.presets.items()
    )


def cards(host: Host, runs: Iterable[Run]) -> list[Card]:
    """A card of each strategy of these runs whose installed code is the runs' own.

    Of others, changed or not installed here, nothing true can be said.
    """
    wanted = {(r.strategy, r.code.get("strategy")) for r in runs if not r.is_teacher}
    found = []
    for name in sorted({name for name, _ in wanted}):
        try:
            offer = host.get("strategies", name)
        except UserError:  # not installed, or offered twice
            continue
        made = card(offer)
        if (name, made.code) in wanted:
            found.append(made)
    return found


def with_cards(host: Host, results: Results, keep: Path | None = None) -> Results:
    """The results, and a card of each strategy that is installed as it was then.

    Those that were not among them are written into the folder `keep`. Raises
    Unwritable.
    """
    known = {(card.strategy, card.code) for card in results.cards}
    made = cards(host, (record.run for record in results.records))
    new = [card for card in made if (card.strategy, card.code) not in known]
    if keep:
        for one in new:
            write_record(keep, one)
    return replace(results, cards=[*results.cards, *new])


def card(offer: Offer) -> Card:
    """What a strategy is, to be kept with the records of its runs.

    What its plugin does not say, or raises when it is asked for, is left empty.
    """
    strategy: type[Strategy] = offer.thing
    summary, details = _told(lambda: _own_words(strategy), ("", ""))
    if offer.plugin.distribution == "kdbench":  # the module's docstring is of several
        words = details
    else:
        words = "\n\n".join(
            filter(None, (details, _told(lambda: formula(strategy), "")))
        )
    return Card(
        strategy=strategy.name,
        code=_told(lambda: code_of(strategy), ""),
        family=_told(lambda: str(strategy.family), ""),
        summary=summary,
        paper=_told(lambda: str(strategy.paper), ""),
        formula=words,
        tasks=_told(lambda: tuple(map(str, tasks_of(strategy))), ()),
        reads=_told(lambda: taps_of(strategy), ""),
        costs=_told(lambda: extra_cost(strategy), ""),
        plugin=offer.plugin.source,
        parameters=_told(lambda: _hyperparameters(strategy), ()),
        references=_told(lambda: references(strategy), ()),
    )


def _told(ask: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return ask()
    except Exception:  # noqa: BLE001 - a plugin may raise anything; results matter more
        return otherwise


def _own_words(strategy: type[Strategy]) -> tuple[str, str]:
    """First paragraph, as one line, and the others of the class's own docstring."""
    text = inspect.cleandoc(vars(strategy).get("__doc__") or "")
    if text.startswith(f"{strategy.__name__}("):  # written by @dataclass
        return "", ""
    summary, _, details = text.partition("\n\n")
    return " ".join(summary.split()), details.strip()


def _hyperparameters(strategy: type[Strategy]) -> tuple[Hyperparameter, ...]:
    notes = field_comments(strategy)
    return tuple(
        Hyperparameter(name=name, default=repr(default), note=notes.get(name, ""))
        for name, default in strategy.parameters().items()
    )


def page(host: Host) -> str:
    """docs/strategies.md: the bundled strategies, by family."""
    offers = [
        offer
        for offer in host.all("strategies")
        if offer.plugin.distribution.partition("-")[0] == "kdbench"
    ]
    families = sorted({offer.thing.family for offer in offers})
    parts = [OPENING]
    for family in families:
        parts.append(f"## {family[0].upper()}{family[1:]}\n")
        parts += [_entry(offer) for offer in offers if offer.thing.family == family]
    return "\n".join(parts)


def _entry(offer: Offer) -> str:
    strategy: type[Strategy] = offer.thing
    facts = {
        "Paper": strategy.paper,
        "Plugin": offer.plugin.distribution,
        "Tasks": ", ".join(tasks_of(strategy)),
        "Reads": taps_of(strategy),
        "Costs": extra_cost(strategy),
        "Presets": presets_of(strategy),
    }
    lines = [f"### {strategy.name}\n", f"{inspect.getdoc(strategy)}\n"]
    if offer.plugin.distribution != "kdbench":
        lines.append(f"```text\n{formula(strategy)}\n```\n")
    lines += [f"- {key}: {value}" for key, value in facts.items() if value]
    lines += [f"- Reference: {paper}" for paper in papers_of(strategy)]
    return "\n".join([*lines, "", *_table(strategy)])


def _table(strategy: type[Strategy]) -> Iterable[str]:
    notes = field_comments(strategy)
    if not strategy.parameters():
        return
    yield "| hyper-parameter | default | unit, range; source |"
    yield "|---|---|---|"
    for name, default in strategy.parameters().items():
        yield f"| `{name}` | `{default!r}` | {notes.get(name, '')} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page(Host()))
