"""Ramps: hyper-parameters that change while the training progresses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kdbench.api import Context, Strategy, UserError
from kdbench.pairing import unfit
from kdbench.ramps import Ramp, parse_ramp
from kdbench.selections import label_of, parse_selection


@dataclass(frozen=True, kw_only=True)
class Ramping(Strategy):
    name = "ramping"

    temperature: float = 4.0
    kd_weight: float = 0.9
    share: float = 0.5

    def loss(self, batch):
        return {}


class Own(Ramping):
    name = "own"

    def train(self, context: Context):
        return context.students[0]


@pytest.mark.parametrize(
    ("text", "ramp"),
    [
        ("4->1", Ramp(4, 1)),
        (" 4 -> 1 ", Ramp(4, 1)),
        ("0->0.9@0.1..0.2", Ramp(0, 0.9, 0.1, 0.2)),
        ("1->1e-3:cosine", Ramp(1, 0.001, shape="cosine")),
        ("-1.5->+2.@.25..1:linear", Ramp(-1.5, 2, 0.25, 1)),
    ],
)
def test_ramps_are_read_as_written(text, ramp):
    assert parse_ramp(text) == ramp


@pytest.mark.parametrize("value", [4.0, None, True, "4", "a->b", "4->1->2", "4->1@0.5"])
def test_anything_else_is_no_ramp(value):
    assert parse_ramp(value) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4->1@0.5..0.5", "must rise"),
        ("4->1@0.5..0", "must rise"),
        ("4->1@0.5..1.5", "must rise"),
        ("4->1@-0.1..1", "must rise"),
        ("4->1:square", "linear or cosine, not 'square'"),
        ("4->1e999", "finite"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_ramp(text)


def test_a_line_is_followed_between_the_two_shares_and_held_outside():
    ramp = Ramp(2, 6, 0.2, 0.6)
    assert [ramp.at(p) for p in (0, 0.2, 0.3, 0.4, 0.6, 1)] == pytest.approx(
        [2, 2, 3, 4, 6, 6]
    )


def test_half_a_cosine_begins_and_ends_flat():
    ramp = Ramp(1, 0, shape="cosine")
    values = [ramp.at(p) for p in (0, 1 / 3, 0.5, 2 / 3, 1)]
    assert values == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_a_strategy_is_at_its_ramps_values_and_keeps_their_texts():
    made = Ramping.configured({"temperature": "4->1", "kd_weight": "0->1@0.5..1"})
    assert made.values() == {
        "temperature": "4->1",
        "kd_weight": "0->1@0.5..1",
        "share": 0.5,
    }
    now = made.at(0.75)
    assert (now.temperature, now.kd_weight, now.share) == (1.75, 0.5, 0.5)
    assert made.at(0).temperature == 4
    again = Ramping.configured(made.values())
    assert again.values() == made.values()
    assert again.at(0.75) == now


def test_a_strategy_without_ramps_is_itself_at_any_time():
    made = Ramping.configured({"temperature": 2})
    assert made.at(0.3) is made


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temperature": "4->0"}, "temperature must be > 0, not 0"),
        ({"temperature": "0->4"}, "temperature must be > 0, not 0"),
        ({"kd_weight": "1->-1"}, "kd_weight must be >= 0"),
        ({"temperature": "4->1:square"}, r"ramping\[temperature\]: .*linear or cosine"),
        ({"share": "0->1"}, "only weights and temperatures can change"),
        ({"kd_weight": "0 to 1"}, r"ramping\[kd_weight=0 to 1\]"),
    ],
)
def test_a_strategy_refuses_ramps_it_cannot_follow(values, says):
    with pytest.raises(UserError, match=says):
        Ramping.configured(values)


def test_what_drives_its_own_loop_has_no_ramps():
    with pytest.raises(UserError, match="drives its own loop"):
        Own.configured({"temperature": "4->1"})


def test_the_refusal_names_the_hyper_parameter_that_cannot_change():
    with pytest.raises(UserError, match=r"share=0->1"):
        Ramping.configured({"temperature": "4->1", "share": "0->1"})


@pytest.mark.parametrize("text", ["4->1", "0->0.9@0..0.2", "4->1e-1@0..1:cosine"])
def test_a_ramp_is_a_value_of_a_selection_and_of_its_label(text):
    [one, two] = parse_selection(f"ramping[temperature={text},2]")
    assert dict(one.params) == {"temperature": text}
    assert dict(two.params) == {"temperature": 2}
    label = label_of("ramping", one.params, Ramping.parameters())
    assert label == f"ramping[temperature={text}]"
    assert dict(parse_selection(label)[0].params) == dict(one.params)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("4.0 -> 1.0", "4->1"),
        ("4->1:linear", "4->1"),
        ("1->0.90@0..0.20", "1->0.9@0..0.2"),
        ("4->1@0..1:cosine", "4->1:cosine"),
    ],
)
def test_equal_ramps_are_one_text(written, text):
    """So that they are one run, under one label."""
    assert Ramping.configured({"temperature": written}).values()["temperature"] == text
    assert parse_ramp(text) == parse_ramp(written)


def test_what_is_fitted_in_one_go_has_no_ramps(host):
    """A tree would be given the first value, under a label that promises both."""
    kd, tree = host.strategy("kd"), host.model("decision_tree")
    pair = [tree], [host.model("mlp_32")], host.dataset("digits")
    assert unfit(kd.configured({}), *pair) is None
    assert "ramps" in unfit(kd.configured({"temperature": "4->1"}), *pair)
