"""The accuracy table against numbers worked out by hand."""

import io

import pytest
from rich.console import Console

from kdbench.api import UserError
from kdbench.records import TOP1
from kdbench.report.document import build
from kdbench.report.plots.curves import mean_curve
from kdbench.report.sections import sections
from kdbench.report.tables import CSV_ONLY
from kdbench.report.terminal import print_table


def accuracy(results, part=0):
    table = build(results).parts[part].table("accuracy")
    names = [row.cells[0].value for row in table.rows]

    def at(name, key):
        return table.cell(names.index(name), key)

    return table, names, at


def test_values_by_hand(make):
    """Differences to scratch: kd 3, 2, 3 (t = 8), better 4, 4.5, 4 (t = 25)."""
    _, names, at = accuracy(make.standard())
    assert names == ["teacher", "scratch", "kd", "better"]
    assert at("teacher", "top1").text == "90.00"
    assert at("teacher", "n").value == 1
    assert at("scratch", "top1").text == "81.00 ± 2.48"
    assert at("scratch", "sd").value == pytest.approx(1)
    assert at("kd", "over_scratch").value == pytest.approx(8 / 3)
    assert at("kd", "over_scratch").text == "+2.67 ± 1.43"
    assert at("kd", "p_scratch").value == pytest.approx(0.015268, abs=1e-6)
    assert at("better", "p_scratch").value == pytest.approx(2 * 0.001596, abs=1e-6)
    assert at("better", "over_kd").text == "+1.50 ± 2.15"
    assert at("better", "p_kd").text == "0.10 n.s."
    assert at("better", "gap").value == pytest.approx(100 * (85 + 1 / 6 - 81) / 9)
    assert at("better", "gap").text == "46"
    assert at("better", "agreement").text == "-"
    assert at("scratch", "over_scratch").text == at("kd", "over_kd").text == "-"


def test_the_best_student_is_marked_not_the_teacher(make):
    _, _, at = accuracy(make.standard())
    assert at("better", "top1").best
    assert not at("teacher", "top1").best
    assert not at("kd", "top1").best


def test_others_are_sorted_by_mean(make):
    results = make.results(
        make.teacher(),
        *make.strategy("low", [60.0, 61.0]),
        *make.strategy("none", [None, None]),
        *make.strategy("high", [70.0, 71.0]),
        *make.strategy("kd", [50.0, 51.0]),
        *make.strategy("scratch", [40.0, 41.0]),
    )
    _, names, _ = accuracy(results)
    assert names == ["teacher", "scratch", "kd", "high", "low", "none"]


def test_failed_and_skipped_runs_stay_in_sight(make):
    run = {"teacher_runs": (make.teacher().id,)}
    skipped = make.record(
        "ab", status="skipped", reason="needs | taps <b>now</b>", run=run
    )
    results = make.results(
        make.teacher(), *make.strategy("vid", [70.0, None, 71.0]), skipped
    )
    _, _, at = accuracy(results)
    assert at("vid", "strategy").text == "vid, failed (1 of 3)"
    assert at("vid", "n").value == 2
    assert at("ab", "top1").text == "skipped (1 of 1)"
    assert at("ab", "top1").value is None
    unfinished = build(results).parts[0].table("unfinished")
    texts = [[cell.text for cell in row.cells] for row in unfinished.rows]
    assert texts == [
        ["ab", "0", "skipped", "needs | taps <b>now</b>"],
        ["vid", "1", "failed", "loss is not finite"],
    ]


def test_gains_are_paired_by_seed(make):
    """Seed 1 of kd failed: the gain is over seeds 0 and 2 only."""
    results = make.results(
        make.teacher(),
        *make.strategy("scratch", [80.0, 10.0, 82.0]),
        *make.strategy("kd", [83.0, None, 84.0]),
    )
    table, _, at = accuracy(results)
    assert at("kd", "over_scratch").value == pytest.approx(2.5)
    assert at("kd", "gap").value == pytest.approx(100 * 2.5 / 9)
    assert any("did not all finish the same seeds" in note for note in table.notes)


def test_one_seed_gets_no_interval_and_no_test(make):
    results = make.results(
        make.teacher(), *make.strategy("scratch", [80.0]), *make.strategy("kd", [82.0])
    )
    table, _, at = accuracy(results)
    assert at("kd", "top1").text == "82.00"
    assert at("kd", "over_scratch").text == "+2.00"
    assert at("kd", "p_scratch").text == at("kd", "sd").text == "-"
    assert any("unknown (1 seed)" in note for note in table.notes)
    assert "no test was done" in " ".join(build(results).parts[0].sentences)


def test_missing_references_are_said(make):
    table, _, at = accuracy(make.results(*make.strategy("crd", [80.0, 81.0])))
    assert at("teacher", "top1").text == "missing"
    assert at("crd", "over_scratch").text == at("crd", "gap").text == "-"
    notes = " ".join(table.notes)
    assert "No scratch run" in notes
    assert "No kd run" in notes
    assert "No record of the teacher run" in notes


def test_a_teacher_no_better_than_scratch_has_no_gap(make):
    run = {"teacher_runs": (make.teacher(70.0).id,)}
    records = [
        make.record(label, seed, top1, run=run)
        for label, base in (("scratch", 80.0), ("kd", 81.0))
        for seed, top1 in enumerate((base, base + 1.5))
    ]
    _, _, at = accuracy(make.results(make.teacher(70.0), *records))
    assert at("kd", "gap").text == "-"


def test_a_constant_gain_has_no_p(make):
    results = make.results(
        make.teacher(),
        *make.strategy("scratch", [80.1, 81.1, 82.1]),
        *make.strategy("kd", [81.3, 82.3, 83.3]),
    )
    table, _, at = accuracy(results)
    assert at("kd", "p_scratch").text == "-"
    assert any("exactly the same in every seed" in note for note in table.notes)
    assert any("± 0 is no certainty" in note for note in table.notes)


def test_an_accuracy_that_never_varies_is_no_certainty(make):
    """Its interval is 0 wide, and nothing else is; one seed has no interval."""
    kd = {"kd": [80.0, 81.0, 82.5]}
    for values, said in (([80.0] * 3, True), ([80.0], False), ([80.0, 80.1], False)):
        table, _, at = accuracy(several(make, **kd, a=values))
        assert (at("a", "half_width").value == 0) == said
        assert any("± 0 is no certainty" in note for note in table.notes) == said


def test_a_variant_is_the_baseline_only_where_it_is_alone(make):
    two = [*make.strategy("kd[t=2]", [83.0]), *make.strategy("kd[t=4]", [84.0])]
    scratch = make.strategy("scratch", [80.0])
    section = build(make.results(*scratch, *two[:1])).parts[0].section
    assert section.baseline("kd") == "kd[t=2]"
    assert build(make.results(*scratch, *two)).parts[0].section.baseline("kd") is None


def test_plugin_measures_get_a_table_of_their_own(make):
    measures = {"top1": 80.0, "margin": 1.25, "odd <i>": None}
    results = make.results(*make.strategy("kd", [80.0], measures=measures))
    table = build(results).parts[0].table("further")
    assert [c.key for c in table.columns] == ["strategy", "margin", "odd <i>"]
    assert [cell.text for cell in table.rows[0].cells] == ["kd", "1.25", "-"]


def test_few_test_items_get_one_decimal(make):
    results = make.results(*make.strategy("kd", [80.123], test_items=360))
    _, _, at = accuracy(results)
    assert at("kd", "top1").text == "80.1"


def test_settings_are_apart_and_named(make, monkeypatch):
    """One dataset and pair with two recipes: the titles say which."""
    first = make.strategy("kd", [80.0])
    longer = make.recipe.model_copy(update={"epochs": 9})
    monkeypatch.setattr(make, "recipe", longer)
    document = build(make.results(*first, *make.strategy("kd", [81.0])))
    titles = [part.section.title for part in document.parts]
    slugs = [part.section.slug for part in document.parts]
    assert len(set(slugs)) == 2
    assert {title.partition(" epochs")[0] for title in titles} == {
        "digits / big-small: 4",
        "digits / big-small: 9",
    }


def test_protocol_versions_are_not_mixed(make):
    old = make.record("kd", 1, 80.0, run={"protocol": "0"})
    with pytest.raises(UserError, match="1 of protocol 0, 1 of protocol 1"):
        build(make.results(make.record("kd", 0, 80.0), old))


def test_every_row_fills_every_column(make):
    document = build(make.standard(speed=[make.speed("small", 1.0)]))
    for table in (*document.parts[0].tables, *document.provenance):
        for shown in (table, *(table.shown(level) for level in range(CSV_ONLY))):
            assert all(len(row.cells) == len(shown.columns) for row in shown.rows)


def test_summary_in_words(make):
    sentences = build(make.standard()).parts[0].sentences
    assert sentences[0] == (
        "On digits / big-small with 3 seeds: the teacher reaches 90.00 %, scratch "
        "81.00 ± 2.48 %, kd 83.67 ± 2.87 % (+2.67 ± 1.43 over scratch, p = 0.015)."
    )
    assert "better with 85.17 ± 2.59 % (+1.50 ± 2.15 over kd" in sentences[1]
    assert "of 1 other strategy: 1 not significantly different" in sentences[2]


def test_the_ruleset_is_said_and_presets_stand_out(make):
    """Settings chosen by pair are never taken for the published ones."""
    changes = {"run": {"params": {"beta": 6.0}, "preset": "dkd@authors"}}
    results = make.results(
        make.record("kd", 0, 80.0), make.record("dkd@authors", 0, 81.0, **changes)
    )
    notes = build(results).parts[0].table("accuracy").notes
    assert any(note.startswith("Ruleset: published.") for note in notes)
    [own] = [note for note in notes if note.startswith("dkd@authors")]
    assert "beta=6.0" in own


def test_a_longer_training_ends_where_the_recipe_does(make):
    """Of a student trained for twice the epochs the curve's last epochs are drawn."""
    record = make.record(
        "longer", 0, 80.0, curves={"top1": [1.0 * k for k in range(8)]}
    )
    section = sections(make.results(record))[0]
    assert mean_curve(section, "longer") == [4.0, 5.0, 6.0, 7.0]


def near(results):
    """Labels whose headline is marked as near the best, and that of the best."""
    table, names, at = accuracy(results)
    headline = table.columns[2].key
    marked = {name for name in names if at(name, headline).near}
    return marked, {name for name in names if at(name, headline).best}


def several(make, **values):
    records = [r for label, own in values.items() for r in make.strategy(label, own)]
    return make.results(make.teacher(), *records)


WORSE = {
    "kd": [80.0, 81.0, 82.0],
    "level": [79.0, 82.0, 81.5],
    "low": [70.0, 71.1, 72.0],
    "same": [78.0, 79.0, 80.0],
}
"""low is worse by 10, 9.9, 10 (p < 0.001); same by 2 each time (no test)."""


def test_what_a_test_does_not_tell_from_the_best_is_marked(make):
    """Neither what is significantly worse, nor what no test was possible for."""
    results = several(make, **WORSE)
    assert near(results) == ({"level"}, {"kd"})
    table, _, at = accuracy(results)
    assert at("level", "top1").text.startswith("80.83 ± ")
    assert "†: not significantly worse than the best mean" in table.caption
    [told] = [s for s in build(results).parts[0].sentences if "Highest mean" in s]
    assert "Not significantly worse than kd: 1 of the 3 other students" in told
    assert "Holm-adjusted; only a lead of about " in told
    [note] = [note for note in table.notes if "†" in note]
    assert note.startswith("With 3 seeds and 5 pairs the first Holm step is p < 0.05/5")


def test_where_all_are_near_that_is_said_in_words(make):
    values = {k: WORSE[k] for k in ("kd", "level")}
    for more, who in (({}, "the other student"), ({"x": [80, 83, 79]}, "any of the 2")):
        told = str(build(several(make, **values, **more)).parts[0].sentences)
        assert f"The seeds cannot tell {who}" in told
        assert "Not significantly worse" not in told


def test_nothing_is_marked_without_a_test(make):
    """One seed; a strategy alone. Nor where the test tells all from the best."""
    clear = {name: WORSE[name] for name in ("kd", "low")}
    for values in ({"kd": [80.0], "a": [80.0 + 1]}, {"a": [80.0, 81.0]}, clear):
        results = several(make, **values)
        assert near(results)[0] == set()
        table = accuracy(results)[0]
        assert "†" not in table.caption
        assert not any("†" in note for note in table.notes)
        told = str(build(results).parts[0].sentences)
        assert "Not significantly worse" not in told
        assert "cannot tell" not in told


def test_of_two_that_are_the_same_but_for_rounding_no_lead_is_told(make):
    """Their means are written 80.12 and 80.13."""
    results = several(make, kd=[80.0 + 1e-12, 80.25 + 1e-12], a=[80.0, 80.25])
    table = accuracy(results)[0]
    assert "†" in table.caption
    assert all(table.notes)
    told = str(build(results).parts[0].sentences)
    assert "from kd (paired t-tests of all pairs, Holm-adjusted)." in told


def test_compressed_students_are_neither_best_nor_near(make):
    run = {"compression": "half", "source": "x", "strategy": "a"}
    small = [make.record("a/half", k, v, run=run) for k, v in enumerate([95.0, 96, 97])]
    plain = [
        make.record(label, seed, value)
        for label, own in WORSE.items()
        for seed, value in enumerate(own)
    ]
    assert near(make.results(*plain, *small)) == ({"level"}, {"kd"})
    names = accuracy(make.results(*plain, *small))[1]
    assert names[-1] == "a/half"


def test_the_lowest_error_is_the_best_to_be_near_to(make):
    headline = TOP1.model_copy(update={"name": "error", "better": "lower"})
    records = [
        make.record(
            label, seed, 1.0, headline=headline, measures={"error": 100 - value}
        )
        for label, own in WORSE.items()
        for seed, value in enumerate(own)
    ]
    assert near(make.results(*records)) == ({"level"}, {"kd"})


@pytest.mark.parametrize(
    ("encoding", "sign", "level"),
    [("utf-8", "†", "80.83 ± 3.99†"), ("ascii", "+", "80.83 +/- 3.99+")],
)
@pytest.mark.parametrize("width", [60, 160])
def test_the_terminal_has_a_sign_and_its_meaning(make, encoding, sign, level, width):
    """Not a style alone; the numbers stay in line, and the table in its width."""
    table = accuracy(several(make, **WORSE))[0]
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_table(table, Console(width=width, file=file))
    file.flush()
    lines = file.buffer.getvalue().decode(encoding).splitlines()
    [own] = [line for line in lines if line.startswith("level")]
    [best] = [line for line in lines if line.startswith("kd")]
    assert own[own.index("80.83") :].startswith(level)
    assert best.index("81.00") == own.index("80.83")
    [shorter] = [line for line in lines if line.startswith("teacher")]
    assert shorter.index("90.00") + 1 == best.index("2.48")
    assert f"{sign} not significantly worse than the best of its column." in lines
    assert max(map(len, lines)) <= width


def test_no_sign_no_legend(make):
    console = Console(width=100, file=io.StringIO())
    print_table(accuracy(several(make, a=[80.0, 81.0]))[0], console)
    assert "not significantly worse" not in console.file.getvalue()


def test_many_names_are_not_all_told(make):
    """Of nine that are significantly worse, and of nine failures, six are named."""
    steps = ([-5.0, -5.2, -5.1], [-5.2, -5.1, -5.0], [-5.1, -5.0, -5.2])
    kd = [80.0, 81.0, 82.0]
    low = {
        f"s{k}": [a + 10 * b for a, b in zip(kd, steps[k % 3], strict=True)]
        for k in range(9)
    }
    failed = {f"f{k}": [None] for k in range(9)}
    told = " ".join(build(several(make, kd=kd, **low, **failed)).parts[0].sentences)
    assert "9 significantly worse (s" in told
    assert "and 3 more), 0 not significantly different" in told
    assert "f5 failed (1 of 1) and 3 more." in told


def test_a_label_of_several_versions_says_so(make):
    """Merged folders may hold one label by different code, or with other settings."""
    old, new = make.strategy("dkd", [80.0, 81.0])
    other = {"teacher_runs": new.run.teacher_runs}
    code = make.record("dkd", 1, 81.0, run={**other, "code": {"strategy": "new"}})
    params = make.record("dkd", 1, 81.0, run={**other, "params": {"weight": 2}})
    for second, words in ((code, "code"), (params, "hyper-parameters")):
        [part] = build(make.results(make.teacher(), old, second)).parts
        assert any(
            f"dkd: its runs are of 2 {kind} of its {words}" in note
            for note in part.table("accuracy").notes
            for kind in ("versions", "settings")
        )
    [part] = build(make.results(make.teacher(), old, new)).parts
    assert not any("its runs are of" in note for note in part.table("accuracy").notes)
