"""What `kdbench show` and docs/strategies.md say of a strategy."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from kdbench.catalogue import extra_cost, field_comments, formula, taps_of
from kdbench.cli import app


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
    assert "the field's" in result.output
