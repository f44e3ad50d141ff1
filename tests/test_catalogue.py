"""What `kdbench show` and docs/strategies.md say of a strategy."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from kdbench import __version__
from kdbench.api import Strategy
from kdbench.catalogue import (
    card,
    cards,
    extra_cost,
    field_comments,
    formula,
    taps_of,
    tasks_of,
)
from kdbench.cli import app
from kdbench.plan import make_plan
from kdbench.plugins import Host, Offer, Plugin
from kdbench.recording import make_record


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scratch", "no teacher"),
        ("kd", "1 teacher"),
        ("scratch_longer", "no teacher; trains for 2 times the recipe's epochs"),
        ("ensemble_kd", "3 teachers"),
        ("mlkd", "1 teacher; one more pass over the view 'strong'"),
        ("ft", "1 teacher; adapters; phase 'paraphraser': 30 epochs"),
        (
            "takd",
            "1 teacher; 1 assistant; phase 'assistant': 1 times the recipe's epochs",
        ),
        (
            "split_transfer",
            "no teacher; 2 students are trained; a loop of its own, not in lockstep",
        ),
        ("kd+fitnet", "1 teacher; adapters"),
    ],
)
def test_extra_cost_in_words(host, name, says):
    assert extra_cost(host.strategy(name)) == says


def test_what_is_tapped(host):
    assert taps_of(host.strategy("kd")) == "logits"
    assert taps_of(host.strategy("fitnet+rkd")) == "logits, stage2, pooled"


def test_a_sum_is_for_the_tasks_of_all_its_parts(host):
    assert tasks_of(host.strategy("kd+fitnet")) == tasks_of(host.strategy("fitnet"))
    assert tasks_of(host.strategy("fitnet+crd")) == ("classification",)


def test_a_sum_has_the_formulas_and_fields_of_its_parts(host):
    both = host.strategy("kd+fitnet")
    assert formula(both).startswith(formula(host.strategy("kd")))
    assert formula(both).endswith(formula(host.strategy("fitnet")))
    assert set(field_comments(both)) == set(both.parameters())


def test_an_inherited_field_keeps_its_comment(host):
    for offer in host.all("strategies"):
        fields = field_comments(offer.thing)
        assert set(fields) == set(offer.thing.parameters()), offer.thing.name


def test_show_says_paper_taps_cost_and_sources():
    result = CliRunner().invoke(app, ["show", "ft"])
    assert result.exit_code == 0
    for words in ("arXiv:1802.04977", "reads: logits, stages", "phase 'paraphraser'"):
        assert words in result.output
    assert "reference: Jangho Kim, SeongUk Park and Nojun Kwak. Para" in result.output
    assert "the field's" in result.output


# --- cards ----------------------------------------------------------------------------


def test_every_bundled_strategy_has_a_whole_card(host):
    for offer in host.all("strategies"):
        made = card(offer)
        said = made.model_dump(exclude={"formula", "references", "parameters"})
        assert all(said.values()), made.strategy
        assert "\n" not in made.summary
        assert made.formula or made.strategy == "scratch", made.strategy
        names = [parameter.name for parameter in made.parameters]
        assert names == list(offer.thing.parameters())
        assert all(parameter.note for parameter in made.parameters), made.strategy


def test_a_card_in_full(host):
    made = card(host.get("strategies", "label_smoothing"))
    assert made.summary.startswith("Cross-entropy to targets mixed with")
    assert made.formula.startswith("target = (1 - s) * one_hot(y) + s / C.")
    assert "Controls that every table needs" not in made.formula
    assert made.paper == "Szegedy et al. 2016, arXiv:1512.00567, section 7"
    assert (made.family, made.tasks) == ("control", ("classification",))
    assert (made.reads, made.costs) == ("logits", "no teacher")
    [smoothing] = made.parameters
    assert (smoothing.name, smoothing.default) == ("smoothing", "0.1")
    assert "szegedy2016rethinking" in made.references[0]
    source = {"name": "kdbench.controls", "distribution": "kdbench"}
    assert made.plugin == {**source, "version": __version__}


def test_the_card_of_a_sum(host):
    made = card(host.get("strategies", "kd+fitnet"))
    keys = [entry.partition("{")[2].partition(",")[0] for entry in made.references]
    assert keys == ["hinton2015distilling", "romero2015fitnets"]
    assert made.tasks == ("classification", "regression", "multi-task")
    assert (
        made.plugin["distribution"] == "kdbench-soft-targets+kdbench-feature-matching"
    )
    assert "kd.weight" in [parameter.name for parameter in made.parameters]


def test_a_card_agrees_with_the_records_of_its_runs(host, helpers):
    """Code, plugin and family are the same in both, also of a sum."""
    chosen = ["scratch", "kd", "kd+fitnet"]
    suite = helpers["suite"](host, strategies=chosen, pairs=["digits-conv"])
    runs = [run for group in make_plan(suite, host, {}).todo for run in group.runs]
    made = {one.strategy: one for one in cards(host, runs)}
    assert sorted(made) == sorted(chosen)
    for run in runs:
        if not run.is_teacher:
            record = make_record(run, host, {}, status="failed")
            assert made[run.strategy].code == run.code["strategy"]
            assert made[run.strategy].plugin == record.plugin
            assert made[run.strategy].family == record.family


def test_no_card_of_what_is_not_installed_or_has_changed(host, helpers):
    suite = helpers["suite"](host, strategies=["scratch", "kd"], pairs=["digits-conv"])
    plan = make_plan(suite, host, {})
    runs = [r for g in plan.todo for r in g.runs if r.strategy == "kd"]
    assert [one.strategy for one in cards(host, runs)] == ["kd"]
    changed = [r.model_copy(update={"code": {"strategy": "other"}}) for r in runs]
    assert cards(host, changed) == []
    assert [one.strategy for one in cards(host, changed + runs)] == ["kd"]
    gone = [r.model_copy(update={"strategy": "gone"}) for r in runs]
    assert cards(host, gone) == []
    assert cards(Host(only=[]), runs) == []  # its plugin is not loaded


def awkward(**members):
    """An offer of a strategy that nobody wrote down, and that says nothing."""
    plain = {"name": "awkward", "loss": lambda self, batch: {}}
    made = type("Awkward", (Strategy,), {**plain, **members})
    plugin = Plugin("some", "some-distribution", "1", "")
    return Offer(dataclass(frozen=True, kw_only=True)(made), plugin)


def test_the_card_of_a_strategy_that_says_nothing():
    made = card(awkward(__module__="no_such_module"))
    assert (made.strategy, made.summary, made.formula) == ("awkward", "", "")
    assert (made.paper, made.references, made.parameters) == ("", (), ())
    assert made.plugin["distribution"] == "some-distribution"
    assert (made.family, made.reads) == ("other", "logits")


class Raising:
    """Raises whatever is asked of it."""

    def __get__(self, instance, owner):
        raise RuntimeError("not today")

    def __str__(self):
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("member", "value", "empty"),
    [
        ("taps", Raising(), ("reads",)),
        ("phases", Raising(), ("costs",)),
        ("paper", 7, ("references",)),
        ("family", Raising(), ("family",)),
        ("tasks", 3, ("tasks",)),
        ("configured", Raising(), ("reads", "costs", "tasks")),
        ("parameters", Raising(), ("parameters",)),
        ("__module__", Raising(), ("code", "formula", "references")),
    ],
)
def test_what_a_plugin_raises_is_left_empty(member, value, empty):
    offer = awkward(__doc__="Says this.", paper="Foo 2020")
    setattr(offer.thing, member, value)
    made = card(offer)
    assert made.summary == "Says this."
    assert not any(getattr(made, name) for name in empty)


def test_a_summary_is_its_own_first_paragraph():
    text = "Two lines\n    of one sentence.\n\n    loss = CE\n    + KD"
    made = card(awkward(__doc__=text, __module__="no_such_module"))
    assert (made.summary, made.formula) == (
        "Two lines of one sentence.",
        "loss = CE\n+ KD",
    )
