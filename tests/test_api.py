"""The contract's own logic: near matches and hyper-parameters."""

from __future__ import annotations

import dataclasses

import pytest

from kdbench.api import Strategy, UserError, unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Strategy):
    """An example."""

    name = "example"
    temperature: float = 4.0  # dimensionless, > 0
    stages: int = 2  # count

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")


def test_unknown_names_the_near_match():
    assert "did you mean 'fitnet'?" in str(
        unknown("strategy", "fitnt", ["fitnet", "kd"])
    )


def test_unknown_lists_what_there_is_when_nothing_is_near():
    assert "known: at, kd" in str(unknown("strategy", "zzzz", ["kd", "at"]))


def test_unknown_lists_ten_of_many():
    known = [f"name{number:02}" for number in range(21)]
    assert str(unknown("strategy", "zzzz", known)).endswith("name09, ... and 11 more")
    assert str(unknown("strategy", "zzzz", known[1:])).endswith("name19, name20")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"temprature": 2}, "did you mean 'temperature'?"),
        ({"temperature": "hot"}, "example[temperature=hot]"),
        ({"stages": 1.5}, "example[stages=1.5]"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "must be finite"),
    ],
)
def test_bad_hyper_parameters_are_refused_by_name(values, says):
    with pytest.raises(UserError) as caught:
        Example.configured(values)
    assert says in str(caught.value)


def test_values_take_the_fields_type():
    assert Example.configured({"temperature": 2}).temperature == 2.0
    assert isinstance(Example.configured({"temperature": 2}).temperature, float)
