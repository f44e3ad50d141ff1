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
    assert verdicts(found) == {"kd": "fails in B"}
    assert found.worse
    back = compare_folders(results(make, kd=[*KD[:3], None]), results(make, kd=KD))
    assert verdicts(back) == {"kd": "fails in A"}
    assert not back.worse


def test_what_failed_before_can_be_worse_now(make):
    before = results(make, kd=[*KD, None])
    after = [*shifted(KD, -9.0, -9.3, -8.9, -9.1), 70.0]
    assert verdicts(compare_folders(before, results(make, kd=after))) == {"kd": "worse"}


def test_a_run_that_is_skipped_now_is_lost(make):
    skipped = make.record("kd", 0, status="skipped", reason="no features")
    found = compare_folders(results(make, kd=[83.0]), make.results(skipped))
    assert verdicts(found) == {"kd": "skipped in B"}
    assert found.worse


def test_the_same_loss_in_every_seed_counts_from_three_on(make):
    lost = results(make, kd=shifted(KD, -2.0, -2.0, -2.0, -2.0))
    assert verdicts(compare_folders(results(make, kd=KD), lost)) == {"kd": "worse"}
    assert verdicts(compare_folders(lost, results(make, kd=KD))) == {"kd": "better"}
    two = results(make, kd=KD[:2]), results(make, kd=shifted(KD[:2], -2.0, -2.0))
    assert verdicts(compare_folders(*two)) == {"kd": "not tested"}


def test_means_are_over_the_seeds_of_both(make):
    found = compare_folders(
        results(make, kd=[80.0, 82.0, 99.0]), results(make, kd=[81.0, 85.0])
    )
    [row] = found.rows
    assert (row.a, row.b, row.difference.mean, row.difference.n) == (81, 83, 2, 2)


def test_errors_of_several_datasets_have_no_mean(make):
    def errors(*scales):
        records = [
            make.record(
                label,
                seed,
                0.0,
                headline=RMSE,
                measures={"rmse": scale * (1 + seed / 10)},
                run={"dataset": dataset},
            )
            for dataset, label, scale in scales
            for seed in range(3)
        ]
        return make.results(*records)

    found = compare_folders(
        errors(("a", "kd", 1.0), ("b", "kd", 1000.0), ("b", "dkd", 900.0)),
        errors(("a", "kd", 1.5), ("b", "kd", 999.0), ("b", "dkd", 898.0)),
    )
    assert found.overall.rows == 2
    assert found.overall.difference.mean == pytest.approx(np.mean([1.1, 2.2]) + 0.0)


def test_two_engines_on_one_side_are_refused(make):
    newer = [make.record("kd", s, v, run={"engine": 99}) for s, v in enumerate(KD)]
    both = make.results(*make.strategy("kd", KD), *newer)
    with pytest.raises(UserError, match="B holds kd on digits / big-small twice"):
        compare_folders(results(make, kd=KD), both)


def test_two_recipes_of_one_pair_are_told_apart(make):
    longer = make.recipe.model_copy(update={"epochs": 9})
    both = make.results(
        *make.strategy("kd", KD),
        *(make.record("kd", s, v, run={"recipe": longer}) for s, v in enumerate(KD)),
    )
    titles = {row.setting for row in compare_folders(both, both).rows}
    assert {t.partition(" epochs")[0] for t in titles} == {
        "digits / big-small: 4",
        "digits / big-small: 9",
    }


def test_one_seed_is_not_tested(make):
    found = compare_folders(results(make, kd=[80.0]), results(make, kd=[60.0]))
    assert verdicts(found) == {"kd": "not tested"}
    assert any("fewer than two seeds" in text for text in sentences(found))
    assert not found.worse
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
    overall = found.overall.difference
    assert (found.overall.rows, found.overall.unit) == (2, " points")
    assert overall.mean == pytest.approx(means.mean())
    assert overall.p_value == pytest.approx(reference.ttest_1samp(means, 0.0).pvalue)


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
    (tmp_path / "b" / "half.json").write_text("{")
    damaged = run(app, ["compare", before, after])
    assert "1 damaged file left out" in damaged.output
    assert "half.json: not complete JSON" in damaged.output
    told = run(app, ["compare", "scratch", "kd", "--in", before])
    assert told.exit_code == 0
    assert "kd against scratch" in told.output
    assert run(app, ["compare", "kd", "scratch", "--in", before]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone", "kd", "--in", "{folder}"], "unknown strategy 'gone'"),
        (["gone/digits", "./gone too"], "neither gone/digits nor ./gone too is"),
        (["{folder}", "kd"], "is a folder and kd is none"),
        (["kd", "dkd", "--in", "{folder}"], "unknown strategy 'dkd'"),
    ],
)
def test_bad_input_is_told_in_words(make, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "a", results(make, kd=KD))
    chosen = [a.format(folder=folder) for a in arguments]
    found = CliRunner().invoke(app, ["compare", *chosen])
    assert isinstance(found.exception, UserError)
    assert words in str(found.exception)
