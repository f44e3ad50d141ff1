"""When the phases of a strategy are."""

from __future__ import annotations

import pytest

from kdbench.api import Phase
from kdbench.engine.phases import Schedule
from kdbench.records import Recipe


def test_the_last_phase_ends_with_the_recipe_and_the_others_lie_before_it():
    recipe = Recipe(epochs=10)
    early, middle, last = Phase(name="a", epochs=3), Phase(name="b", times=0.5), Phase()
    schedule = Schedule((early, middle, last), recipe, students=2)
    assert (schedule.first, schedule.passes) == (-8, 2 * 1.8)
    for epoch, phase in ((-8, early), (-6, early), (-5, middle), (-1, middle)):
        assert schedule.at(epoch) == phase
        assert not schedule.is_last(epoch)
    assert schedule.at(0) == schedule.at(9) == last
    assert [e for e in range(-8, 10) if schedule.starts_at(e)] == [-8, -5, 0]
    assert [schedule.start_of(schedule.at(e)) for e in (-6, -1, 9)] == [-8, -5, 0]
    assert schedule.is_last(0)


def test_a_phase_of_no_epochs_is_left_out_and_a_short_one_has_one():
    schedule = Schedule((Phase(name="a", epochs=0), Phase()), Recipe(epochs=4))
    assert (schedule.first, schedule.passes) == (0, 1)
    assert schedule.at(0) == Phase()
    assert Phase(times=0.01).length(Recipe(epochs=4)) == 1
    assert Schedule((Phase(times=2),), Recipe(epochs=4)).first == -4


def test_one_phase_given_twice_is_two():
    same = Phase(name="again", epochs=2)
    schedule = Schedule((same, same, Phase()), Recipe(epochs=4))
    assert [schedule.start_of(schedule.at(e)) for e in (-4, -3, -2, -1)] == [
        *(-4, -4),
        *(-2, -2),
    ]


def test_only_the_students_of_a_phase_count_as_passes():
    phases = (Phase(name="a", students=(1,)), Phase(students=(0,)))
    assert Schedule(phases, Recipe(epochs=4), students=2).passes == 2
    phases = (Phase(name="a", students=()), Phase())
    assert Schedule(phases, Recipe(epochs=4), students=1).passes == 1


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"epochs": 1.5}, {"times": 0}])
def test_a_phase_that_cannot_last_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Phase(**wrong)
