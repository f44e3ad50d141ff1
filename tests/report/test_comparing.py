"""Two results against each other: matched, tested, and told in an exit code."""

import json

import numpy as np
import pytest
from scipy import stats as reference
from typer.testing import CliRunner

from kdbench.api import UserError
from kdbench.cli import app
from kdbench.records import RMSE
from kdbench.report.comparing import compare_folders, compare_strategies
from kdbench.report.comparison import sentences, table
from kdbench.store import write_record

SCRATCH = [80.0, 81.0, 82.0, 80.5]
KD = [83.0, 83.1, 85.0, 83.4]


def results(make, **strategies):
    records = [r for name, v in strategies.items() for r in make.strategy(name, v)]
    return make.results(make.teacher(), *records)


def shifted(values, *by):
    return [v + d for v, d in zip(values, by, strict=True)]


def verdicts(found):
    return {row.label: row.verdict for row in found.rows}


def test_differences_and_tests_are_scipys(make):
    after = shifted(KD, -1.0, -1.3, -0.9, -1.1)
    found = compare_folders(
        results(make, scratch=SCRATCH, kd=KD),
        results(make, scratch=shifted(SCRATCH, 0.5, -0.5, 0.3, 0.1), kd=after),
    )
    kd = next(row for row in found.rows if row.label == "kd")
    raw = reference.ttest_rel(after, KD).pvalue
    assert kd.difference.mean == pytest.approx(np.mean(after) - np.mean(KD))
    assert kd.difference.p_value == pytest.approx(raw)
    assert kd.p_holm == pytest.approx(2 * raw)  # the smaller of two
    assert kd.p_sign_flip == pytest.approx(2 / 2**4)
    assert verdicts(found) == {"kd": "worse", "scratch": "not significant"}
    assert [row.label for row in found.worse] == ["kd"]


def test_what_is_identical_takes_no_part_in_the_correction(make):
    after = shifted(KD, -1.0, -1.3, -0.9, -1.1)
    found = compare_folders(
        results(make, scratch=SCRATCH, kd=KD), results(make, scratch=SCRATCH, kd=after)
    )
    assert verdicts(found) == {"scratch": "identical", "kd": "worse"}
    kd = next(row for row in found.rows if row.label == "kd")
    assert kd.p_holm == kd.difference.p_value


def test_a_lower_error_is_better(make):
    def errors(values):
        records = [
            make.record("kd", seed, 0.0, headline=RMSE, measures={"rmse": value})
            for seed, value in enumerate(values)
        ]
        return make.results(*records)

    before, after = [2.0, 2.1, 1.9, 2.0], [1.5, 1.61, 1.38, 1.5]
    assert verdicts(compare_folders(errors(before), errors(after))) == {"kd": "better"}
    assert verdicts(compare_folders(errors(after), errors(before))) == {"kd": "worse"}


def test_a_tolerated_loss_is_not_worse(make):
    sides = (
        results(make, kd=KD),
        results(make, kd=shifted(KD, -0.2, -0.21, -0.19, -0.2)),
    )
    assert verdicts(compare_folders(*sides)) == {"kd": "worse"}
    found = compare_folders(*sides, tolerance=0.3)
    assert verdicts(found) == {"kd": "not significant"}
    assert "worse only by more than 0.3" in table(found).caption


def test_a_run_that_fails_now_is_worse_however_the_others_fare(make):
    found = compare_folders(
        results(make, kd=KD), results(make, kd=[*shifted(KD, 1, 1.1, 0.9, 1)[:3], None])
    )
    assert verdicts(found) == {"kd": "fails now"}
    assert found.worse
    back = compare_folders(results(make, kd=[*KD[:3], None]), results(make, kd=KD))
    assert verdicts(back) == {"kd": "finishes now"}
    assert not back.worse


def test_one_seed_is_not_tested(make):
    found = compare_folders(results(make, kd=[80.0]), results(make, kd=[60.0]))
    assert verdicts(found) == {"kd": "not tested"}
    assert any("fewer than two seeds" in text for text in sentences(found))
    same = compare_folders(results(make, kd=[80.0]), results(make, kd=[80.0]))
    assert verdicts(same) == {"kd": "identical"}


def test_the_engine_may_differ_and_is_named(make):
    before = results(make, kd=KD)
    after = make.results(
        *(
            make.record("kd", seed, v, run={"engine": 99})
            for seed, v in enumerate(shifted(KD, 0.1, -0.1, 0.2, 0.0))
        )
    )
    found = compare_folders(before, after)
    assert verdicts(found) == {"kd": "not significant"}
    assert ("engine", str(before.records[0].run.engine), "99") in found.changes


def test_what_cannot_be_compared_is_refused(make):
    other = make.results(make.record("kd", 0, 80.0, run={"dataset": "mnist"}))
    with pytest.raises(UserError, match=r"no strategy in common.*digits / big-small"):
        compare_folders(results(make, kd=KD), other)
    newer = make.results(make.record("kd", 0, 80.0, run={"protocol": "2"}))
    with pytest.raises(UserError, match="protocol 1 and B protocol 2"):
        compare_folders(results(make, kd=KD), newer)
    with pytest.raises(UserError, match="did you mean 'kd'"):
        compare_strategies(results(make, kd=KD), "kdd", "kd")


def test_overall_is_the_mean_of_each_seed(make):
    by = {"scratch": (0.5, 0.1, 0.3, 0.2), "kd": (0.1, 0.3, 0.1, 0.4)}
    found = compare_folders(
        results(make, scratch=SCRATCH, kd=KD),
        results(
            make, scratch=shifted(SCRATCH, *by["scratch"]), kd=shifted(KD, *by["kd"])
        ),
    )
    means = np.mean([by["scratch"], by["kd"]], axis=0)
    assert found.overall.mean == pytest.approx(means.mean())
    assert found.overall.p_value == pytest.approx(
        reference.ttest_1samp(means, 0.0).pvalue
    )


def write(folder, found):
    for record in found.records:
        write_record(folder, record)
    return str(folder)


def test_the_exit_code_is_for_ci(make, tmp_path):
    before = write(tmp_path / "a", results(make, scratch=SCRATCH, kd=KD))
    worse = shifted(KD, -1.0, -1.3, -0.9, -1.1)
    after = write(tmp_path / "b", results(make, scratch=SCRATCH, kd=worse))
    run = CliRunner().invoke
    same = run(app, ["compare", before, before])
    assert (same.exit_code, "2 identical" in same.output) == (0, True)
    lost = run(app, ["compare", before, after])
    assert lost.exit_code == 1
    assert "1 significantly worse, 1 identical" in lost.output
    assert run(app, ["compare", after, before]).exit_code == 0
    data = json.loads(run(app, ["compare", before, after, "--json"]).output)
    assert data["worse"] == 1
    assert {row["strategy"]: row["verdict"] for row in data["rows"]} == {
        "kd": "worse",
        "scratch": "identical",
    }
    told = run(app, ["compare", "scratch", "kd", "--in", before])
    assert told.exit_code == 0
    assert "kd against scratch" in told.output
    assert run(app, ["compare", "kd", "scratch", "--in", before]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["results/nothing-here", "kd"], "kd"),
        (["./gone", "./gone too"], "no results folder ./gone"),
        (["{folder}", "kd"], "is a folder and kd is none"),
        (["kd", "dkd", "--in", "{folder}"], "unknown strategy 'dkd'"),
    ],
)
def test_bad_input_is_told_in_words(make, tmp_path, arguments, words):
    folder = write(tmp_path / "a", results(make, kd=KD))
    chosen = [a.format(folder=folder) for a in arguments]
    found = CliRunner().invoke(app, ["compare", *chosen])
    assert isinstance(found.exception, UserError)
    assert words in str(found.exception)
