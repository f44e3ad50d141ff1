"""The tables of tests against numbers worked out by hand or by other libraries."""

import base64

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench.records import Headline
from kdbench.report import analysis, reach
from kdbench.report.analysis import standings
from kdbench.report.evidence import detectable_table, evidence_table
from kdbench.report.items import RESAMPLES
from kdbench.report.sections import sections
from kdbench.report.terminal import fit

RMSE = Headline(name="rmse", title="RMSE", unit="m", gain_unit="m", better="lower")


@pytest.fixture
def section(make):
    """The section of: label -> a value for each seed, None for a failed run."""

    def of(**values):
        records = [r for k, v in values.items() for r in make.strategy(k, v)]
        return sections(make.results(make.teacher(), *records))[0]

    return of


@pytest.fixture
def with_items(make):
    """The section of: label -> for each seed whether each test item was right."""

    def of(**changes):
        items = changes.pop("items")
        run = {"teacher_runs": (make.teacher().id,)}
        records = [
            make.record(
                label,
                seed,
                100 * sum(right) / len(right),
                run=run,
                test_items=len(right),
                correct=base64.b64encode(np.packbits(right).tobytes()).decode(),
                **changes,
            )
            for label, seeds in items.items()
            for seed, right in enumerate(seeds)
        ]
        return sections(make.results(make.teacher(), *records))[0]

    return of


def right(*which, items=16):
    return [item in which for item in range(items)]


def reader(table):
    names = [row.cells[0].value for row in table.rows]
    return names, lambda name, key: table.cell(names.index(name), key)


def keys(table):
    return [column.key for column in table.columns]


def test_over_seeds_by_hand(section):
    """Differences 1, 2, 3 (t = 2 sqrt 3: p = 1 - t / sqrt(t^2 + 2)) and -1, 1, 0."""
    found = section(kd=[80, 80, 80], a=[81, 82, 83], b=[79, 81, 80])
    names, at = reader(evidence_table(found))
    assert names == ["a", "b"]
    p = 1 - 12**0.5 / 14**0.5
    assert at("a", "over_kd").text == "+2.00 ± 2.48"
    assert at("a", "over_kd_half_width").value == pytest.approx(4.302653 / 3**0.5)
    assert at("a", "n_kd").value == 3
    assert at("a", "sd_kd").value == pytest.approx(1)
    assert at("a", "t_kd").value == pytest.approx(p)
    assert at("a", "t_kd_holm").value == pytest.approx(2 * p)
    assert at("a", "t_kd_holm").text == "0.15 n.s."
    assert at("a", "flip_kd").value == pytest.approx(0.25)
    assert at("a", "flip_kd_holm").value == pytest.approx(0.5)
    assert at("b", "t_kd").value == at("b", "flip_kd").value == pytest.approx(1)
    assert at("b", "over_kd").value == 0


def test_both_references_and_kd_itself(section):
    """Against scratch kd has a row; it stands in no test against itself."""
    found = section(scratch=[70, 71, 70], kd=[71, 73, 73], a=[75, 70, 75])
    table = evidence_table(found)
    names, at = reader(table)
    assert names == ["kd", "a"]
    assert table.rows[0].kind == "reference"
    assert at("kd", "over_kd").text == at("kd", "t_kd_holm").text == "-"
    assert at("kd", "over_scratch").value == pytest.approx(2)
    assert at("kd", "flip_scratch").value == 0.25
    p = 1 - 12**0.5 / 14**0.5
    assert at("kd", "t_scratch_holm").value == pytest.approx(2 * p)
    assert at("a", "t_scratch_holm").value == at("a", "t_scratch").value > 2 * p
    assert at("a", "flip_scratch").value == 0.5  # 5, -1, 5: four of eight are as far
    assert at("a", "flip_scratch_holm").value == 0.5
    assert "over_scratch" in keys(table.shown())
    assert "t_scratch_holm" not in keys(table.shown())  # in the accuracy table


def test_over_items_by_hand(with_items):
    """6 : 0 has p = 2 / 64, 5 : 0 has 2 / 32; seeds 0 better, 1 worse, 2 neither."""
    six, five = right(*range(6)), right(*range(5))
    none = right()
    items = {"kd": [none, six, none], "a": [six, none, five]}
    table = evidence_table(with_items(items=items))
    _, at = reader(table)
    assert at("a", "mcnemar_kd_better").text == "1 of 3"
    assert at("a", "mcnemar_kd_worse").text == "1 of 3"
    assert at("a", "mcnemar_kd_better").value == 1
    assert at("a", "mcnemar_kd_seeds").value == 3
    assert at("a", "right_only_strategy_kd").value == 11
    assert at("a", "right_only_kd").value == 6
    assert at("a", "items_kd").value == pytest.approx(100 * 5 / 3 / 16)
    assert at("a", "items_kd").value == pytest.approx(at("a", "over_kd").value)
    assert f"{RESAMPLES} resamples" in table.caption


def test_items_are_averaged_over_seeds_before_they_are_resampled(with_items):
    """What one seed wins the other loses on the same items: nothing is left to vary."""
    six, none = right(*range(6)), right()
    items = {"kd": [none, six], "a": [six, none]}
    _, at = reader(evidence_table(with_items(items=items)))
    assert at("a", "items_kd_low").value == at("a", "items_kd_high").value == 0
    assert at("a", "items_kd").text == "+0.0 to +0.0"


def test_the_interval_over_items_is_that_of_scipy(with_items):
    draw = np.random.default_rng(0)
    items = {"kd": draw.random((3, 300)) < 0.7, "a": draw.random((3, 300)) < 0.8}
    _, at = reader(evidence_table(with_items(items=items)))
    differences = 100 * (items["a"].mean(0) - items["kd"].mean(0))
    expected = scipy_stats.bootstrap(
        (differences,), np.mean, n_resamples=5000, method="percentile", rng=draw
    ).confidence_interval
    width = expected.high - expected.low
    assert at("a", "items_kd_low").value == pytest.approx(expected.low, abs=width / 20)
    assert at("a", "items_kd_high").value == pytest.approx(
        expected.high, abs=width / 20
    )


def test_equal_students_differ_in_nothing(with_items):
    same = [right(1, 2), right(2, 3), right(4)]
    found = with_items(items={"kd": same, "a": same})
    _, at = reader(evidence_table(found))
    assert at("a", "over_kd").value == 0
    for key in ("t_kd", "t_kd_holm", "flip_kd", "flip_kd_holm"):
        assert at("a", key).value == 1
    assert at("a", "mcnemar_kd_better").text == "0 of 3"
    assert at("a", "mcnemar_kd_worse").text == "0 of 3"
    assert at("a", "items_kd").text == "+0.0 to +0.0"
    assert detectable_table(found) is None  # nothing varies


def test_one_seed_has_items_but_no_test_over_seeds(with_items):
    items = {"kd": [right()], "a": [right(*range(6))]}
    table = evidence_table(with_items(items=items))
    _, at = reader(table)
    for key in ("t_kd", "t_kd_holm", "flip_kd", "flip_kd_holm", "sd_kd"):
        assert at("a", key).value is None
        assert at("a", key).text == "-"
    assert at("a", "mcnemar_kd_better").text == "1 of 1"
    notes = " ".join(table.notes)
    assert "no test over seeds is possible" in notes
    assert "it says nothing about another training" in notes
    assert "sign-flip" not in notes


def test_one_seed_without_items_has_no_word_of_them(section):
    table = evidence_table(section(kd=[80], a=[81]))
    assert not [key for key in keys(table) if "items" in key or "mcnemar" in key]
    assert len(table.notes) == 1
    assert "test items" not in table.caption
    assert detectable_table(section(kd=[80], a=[81])) is None


@pytest.mark.parametrize(
    ("seeds", "others", "expected"),
    [
        (2, 1, "With 2 seeds the sign-flip test's p is at least 0.5: whatever"),
        (5, 1, "With 5 seeds the sign-flip test's p is at least 0.0625: whatever"),
        (6, 2, "at least 0.0312, and Holm-adjusted for 2 tests at least 0.0625:"),
        (6, 1, "With 6 seeds the sign-flip test's p is at least 0.0312."),
    ],
)
def test_what_the_permutation_test_can_reach_is_said(section, seeds, others, expected):
    values = {f"s{k}": [81.0 + k * seed for seed in range(seeds)] for k in (1, 2)}
    values = dict(list(values.items())[:others])
    [note] = evidence_table(section(kd=[80.0] * seeds, **values)).notes
    assert expected in note


def test_a_constant_difference_has_a_permutation_test_but_no_t_test(section):
    table = evidence_table(section(kd=[80, 81, 82], a=[81, 82, 83]))
    _, at = reader(table)
    assert at("a", "t_kd").text == "-"
    assert at("a", "flip_kd").value == 0.25
    assert any("exactly the same in every seed" in note for note in table.notes)
    assert at("a", "detectable_kd").value is None
    varied = evidence_table(section(kd=[80, 81, 82], a=[81, 82, 84]))
    assert not any("exactly the same" in note for note in varied.notes)


def test_pairs_are_of_common_seeds(section):
    found = section(kd=[80, None, 82, 83], a=[81, 50, 84, None], b=[81, 2, 82, 86])
    _, at = reader(evidence_table(found))
    assert (at("a", "n_kd").value, at("b", "n_kd").value) == (2, 3)
    assert at("a", "over_kd").value == pytest.approx(1.5)
    assert at("b", "over_kd").value == pytest.approx(4 / 3)


def test_without_kd_scratch_is_the_reference(section):
    found = section(scratch=[80, 81], a=[83, 82])
    table = evidence_table(found)
    assert table.title == "Tests against scratch"
    assert "against scratch" in table.caption
    assert not [key for key in keys(table) if key.endswith("_kd")]
    assert "t_scratch_holm" in keys(table.shown(0))
    assert reach.reach(found).reference == "scratch"


@pytest.mark.parametrize(
    "values",
    [
        {"a": [80, 81], "b": [81, 82]},
        {"kd": [None, None], "scratch": [None, None], "a": [80, 81]},
        {"kd": [80, None], "a": [None, 81]},
        {"kd": [80, 81]},
        {"scratch": [80, 81]},
    ],
)
def test_nothing_to_compare_is_no_table(section, values):
    found = section(**values)
    assert evidence_table(found) is None
    assert detectable_table(found) is None
    assert reach.sentence(found) == ""


def test_a_lower_error_is_a_positive_difference_and_has_no_items(make):
    records = [
        make.record(
            label,
            seed,
            1.0,
            headline=RMSE,
            measures={"rmse": rmse},
            correct="/w==",
            test_items=8,
        )
        for label, values in (("kd", [20.0, 21.0, 22.0]), ("a", [19.0, 18.0, 20.0]))
        for seed, rmse in enumerate(values)
    ]
    found = sections(make.results(*records))[0]
    table = evidence_table(found)
    _, at = reader(table)
    assert at("a", "over_kd").value == pytest.approx(2)
    assert not [key for key in keys(table) if "items" in key]
    power = detectable_table(found)
    assert [c.heading for c in power.columns if c.key.startswith("seeds_")] == [
        "Seeds for 1% (0.21 m)",
        "Seeds for 2% (0.42 m)",
        "Seeds for 5% (1.1 m)",
        "Seeds for 10% (2.1 m)",
    ]
    assert "shares of the mean RMSE of kd" in power.caption


@pytest.mark.parametrize("bad", ["AAAAAA==", "AA==", "no base64!", "AAH="])
def test_bits_of_another_test_set_are_left_out_and_named(with_items, make, bad):
    """Too many bytes, too few, none at all, and a bit behind the last item."""
    seeds = [right(1, 2, items=12)] * 3
    found = with_items(items={"kd": seeds, "<b>a": seeds})
    odd = found.runs["<b>a"][1].model_copy(update={"correct": bad})
    found.runs["<b>a"][1] = odd
    table = evidence_table(found)
    _, at = reader(table)
    assert at("<b>a", "n_kd").value == 3
    assert at("<b>a", "mcnemar_kd_seeds").value == 2
    [note] = [note for note in table.notes if "not those of the test set" in note]
    assert note.endswith(": <b>a (seed 1).")


def test_another_number_of_items_is_another_test_set(with_items):
    items = {"kd": [right(1)] * 3, "a": [right(1, items=15), right(1), right(1)]}
    table = evidence_table(with_items(items=items))
    _, at = reader(table)
    assert at("a", "mcnemar_kd_seeds").value == 2
    assert any("a (seed 0)" in note for note in table.notes)


def test_compressed_students_are_in_no_test(make):
    """Nor are their bits looked at."""
    run = {"compression": "half", "source": "x", "strategy": "a"}
    items = {"correct": "/w==", "test_items": 8}
    broken = {"run": run, "correct": "?", "test_items": 8}
    small = [make.record("a/half", seed, 50.0 + seed, **broken) for seed in range(3)]
    plain = [
        make.record(label, seed, value, **items)
        for label, values in (("kd", [80, 80, 80]), ("a", [81, 82, 83]))
        for seed, value in enumerate(values)
    ]
    with_small, without = (
        sections(make.results(*records))[0] for records in (plain + small, plain)
    )
    assert evidence_table(with_small) == evidence_table(without)
    assert detectable_table(with_small) == detectable_table(without)


def test_every_record_is_unpacked_once(with_items, monkeypatch):
    labels = ("scratch", "kd", "a", "b", "c")
    found = with_items(items={label: [right(1), right(2)] for label in labels})
    calls = []
    unpack = analysis.stats.unpack

    def counted(*args):
        calls.append(args)
        return unpack(*args)

    monkeypatch.setattr(analysis.stats, "unpack", counted)
    evidence_table(found)
    assert len(calls) == len(found.records) == 10


def test_the_table_fits_a_terminal(with_items):
    """Of the longest name of a strategy in the catalogue, with both references."""
    labels = ("scratch", "kd", "confident_pseudo_label")
    draw = np.random.default_rng(0)
    items = {label: draw.random((14, 3000)) < 0.5 for label in labels}
    table = fit(evidence_table(with_items(items=items)), 110)
    assert {"over_kd", "t_kd_holm", "flip_kd_holm", "items_kd", "n_kd"} <= {
        *keys(table)
    }
    assert {"mcnemar_kd_better", "mcnemar_kd_worse"} <= {*keys(table)}


def test_standings_are_worked_out_once_and_cannot_be_spoilt(section):
    found = section(kd=[80, 81], a=[82, 82])
    first = standings(found)
    assert standings(found)[0] is first[0]
    first.clear()
    assert [s.label for s in standings(found)] == ["kd", "a"]
    other = section(kd=[80, 81], a=[82, 82])
    assert standings(other)[0] is not standings(found)[0]
