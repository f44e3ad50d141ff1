"""The manuscript as data: text, numbers, columns, works cited, what is told."""

import doctest

import pytest

from kdbench.cards import Card
from kdbench.report.plots.style import Drawn
from kdbench.report.tables import Cell, Column, Row, Table, word
from kdbench.report.typesetting import manuscript as writing
from kdbench.report.typesetting import prose, tex
from kdbench.report.typesetting.blocks import Bullets, Grid, Heading, Paragraph
from kdbench.report.typesetting.fitting import grids, width
from kdbench.report.typesetting.manuscript import manuscript
from kdbench.report.typesetting.numbers import aligned
from kdbench.report.typesetting.references import References, bibtex, methods, parse
from kdbench.report.typesetting.wording import cited

HINTON = """@misc{hinton2015distilling,
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  title = {Distilling the Knowledge in a Neural Network},
  year = 2015, eprint = {1503.02531}
}"""


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Figures are not drawn here: only their size is asked for."""
    drawn = Drawn("", b"/MediaBox [ 0 0 500 300 ]", b"")
    monkeypatch.setattr(writing, "drawn", lambda plot: drawn)


def shown(spans):
    return "".join(f"({s.text})" if s.kind == "hidden" else s.text for s in spans)


def words_of(blocks):
    found = []
    for block in blocks:
        if isinstance(block, Heading):
            found.append(block.text)
        if isinstance(block, Paragraph):
            found.append(shown(block.spans))
        if isinstance(block, Bullets):
            found += map(shown, block.items)
    return "\n".join(found)


def grid_of(text, slug):
    return next(
        b
        for b in (*text.body, *text.appendix)
        if isinstance(b, Grid) and b.slug == slug
    )


def card(strategy, *references, **changes):
    values = {"code": "c0de" * 3, "family": "logits", "summary": "Match outputs."}
    return Card(strategy=strategy, references=references, **(values | changes))


def test_examples():
    assert doctest.testmod(prose).failed == 0


def test_text_loses_what_cannot_be_seen_and_keeps_the_rest():
    assert prose.clean("a\x00b\u202ec\nd  e\u0301") == "a bc d \xe9"
    assert prose.name("kd[temperature=4]").replace(prose.BREAK, "") == (
        "kd[temperature=4]"
    )
    long = "a" * 80
    assert prose.name(long).replace(prose.BREAK, "") == long
    assert max(map(len, prose.name(long).split(prose.BREAK))) <= prose.RUN


def test_numbers_align_at_their_points():
    found = [shown(s) for s in aligned(["95.0 ± 6.2", "7.25 ± 11.1", "99.3", "-"])]
    gap = prose.SPACE
    assert found == [
        f"95.0(0){gap}±{gap}(0)6.2",
        f"7.25{gap}±{gap}11.1",
        f"99.3(0{gap}±{gap}00.0)",
        "\u2013",
    ]
    assert [shown(s) for s in aligned(["-1.5", "0.31 n.s.", "1.43x"])] == [
        f"{prose.MINUS}1.5(0{gap}n.s.)",
        f"0.31{gap}n.s.",
        f"1.43{prose.TIMES}(n.s.)",
    ]
    assert [shown(s) for s in aligned(["88.7 (4.0)", "8.7 (13.3)"])] == [
        f"88.7(0){gap}(4.0)",
        f"8.7{gap}(13.3)",
    ]


@pytest.mark.parametrize("text", ["skipped (3 of 3)", "in 1 of 3 seeds", "kd", ""])
def test_words_among_numbers_stay_words(text):
    assert shown(aligned(["12.5", text])[1]) == prose.name(text)


def wide(columns, rows=3, text="95.0 ± 6.2", level=0):
    own = tuple(
        Column(f"c{i}", f"Column {i}", "%", level=level) for i in range(columns)
    )
    first = Column("strategy", "Strategy", numeric=False)
    cells = (word("kd"), *(Cell(95.0, text) for _ in own))
    return Table("wide", "Wide", "Caption.", (first, *own), (Row(cells),) * rows)


def test_a_table_fits_by_its_least_needed_columns_first():
    columns = (
        Column("strategy", "Strategy", numeric=False),
        *(Column(f"c{i}", f"Column {i}", level=i) for i in range(1, 9)),
    )
    row = Row((word("kd"), *(Cell(1.0, "1234.0 ± 56.2 n.s.") for _ in range(8))))
    (found,) = grids(Table("t", "T", "C.", columns, (row,)), "t")
    kept = [column.heading[0] for column in found.columns]
    assert 2 < len(kept) < 9
    assert kept == ["Strategy", *(f"Column {i}" for i in range(1, len(kept)))]
    gone = [f"Column {i}" for i in range(len(kept), 9)]
    assert shown(found.notes[-1]) == (f"Left out for want of room: {', '.join(gone)}.")
    assert not found.landscape


def test_a_wide_table_turns_its_page_and_a_wider_one_is_split():
    (turned,) = grids(wide(13), "t")
    assert turned.landscape
    parts = grids(wide(40), "t")
    assert len(parts) > 1
    assert [p.slug for p in parts] == [
        "t",
        *(f"t-{i + 2}" for i in range(len(parts) - 1)),
    ]
    assert {p.columns[0].heading for p in parts} == {("Strategy",)}
    assert sum(len(p.columns) - 1 for p in parts) == 40
    for part in parts:
        body = [max(width(shown(r[j].spans)) for r in part.rows) for j in range(2)]
        assert body[0] + (len(part.columns) - 1) * body[1] < 93


def test_the_best_is_bold_and_what_is_near_it_has_a_dagger():
    columns = (Column("s", "S", numeric=False), Column("v", "V"))
    cells = [
        Cell(2.0, "2.0", best=True, near=True),
        Cell(1.5, "1.5", near=True),
        Cell(1.0, "1.0"),
    ]
    rows = tuple(Row((word("x"), cell)) for cell in cells)
    (found,) = grids(Table("t", "T", "C.", columns, rows), "t")
    slots = [row[1] for row in found.rows]
    assert [(s.best, s.near) for s in slots] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert [shown(s.spans) for s in slots] == ["2.0(†)", "1.5", "1.0(†)"]
    assert [shown(n)[:4] for n in found.notes] == ["Bold", "†: n"]


def test_long_text_wraps_and_the_table_knows_its_lines():
    columns = (Column("s", "S", numeric=False), Column("r", "Reason", numeric=False))
    rows = (Row((word("x" * 80), word("why " * 100))),) * 9
    (found,) = grids(Table("t", "T", "C.", columns, rows), "t")
    assert [column.width is not None for column in found.columns] == [True, True]
    assert sum(column.width for column in found.columns) <= 57
    assert not found.short
    (small,) = grids(Table("t", "T", "C.", columns, rows[:1]), "t")
    assert small.short


def test_entries_are_read_as_data():
    nasty = r"""@article{x{y, title = {no}}
    @comment{a, title = {comment}}
    @article{k, author = {M\"{u}ller, K{\'e}vin and \L{}o{\v s}}, year = 2020,
      title = {{KD} \input{/etc/passwd} at 5\% \& $\alpha$ \write18{rm} #1},
      url = {https://a.b/\input{x}}, doi = {10.1/a_b}, abstract = {gone}}
    @article{open, title = {never closed
    """
    (entry,) = parse(nasty)
    assert entry.key == "k"
    assert dict(entry.fields) == {
        "author": "Müller, Kévin and Łoš",
        "year": "2020",
        "title": "{KD} at 5% & \u03b1 18{rm} #1",
        "doi": "10.1/a_b",
    }
    assert "\\" not in "".join(entry.fields.values())


def test_a_work_cited_twice_is_one_and_another_gets_its_own_key():
    references = References()
    other = "@misc{hinton2015distilling, title = {Another}, year = {2015}}"
    assert references.add(HINTON) == ["hinton2015distilling"]
    assert references.add(HINTON.replace("  author", "\n author")) == [
        "hinton2015distilling"
    ]
    assert references.add(other) == ["hinton2015distilling-2"]
    assert references.add(other) == ["hinton2015distilling-2"]
    assert references.add("no entry at all") == []
    assert [entry.key for entry in references.entries.values()] == list(
        references.entries
    )
    text = bibtex(references.entries.values(), tex.escape)
    assert text.count("@misc{hinton2015distilling,") == 1
    assert "https://arxiv.org/abs/1503.02531" in text


def test_the_works_on_methods_can_all_be_read():
    assert len(methods()) == 8
    assert methods()["demsar2006statistical"].short == "Demšar (2006)"
    assert methods()["student1908probable"].short == "Student (1908)"
    assert methods()["dolan2002benchmarking"].short == "Dolan and Another (2002)"


def test_citations_are_marked_in_own_words_only(make):
    assert [s.kind for s in cited("a [@b] c")] == ["text", "cite", "text"]
    text = manuscript(make.standard(cards=[card("kd", summary="[@holm1979simple]")]))
    grid = grid_of(text, "strategies")
    assert "[@holm1979simple]" in shown(grid.rows[1][3].spans).replace(prose.BREAK, "")


def test_a_strategy_cites_its_works_or_names_its_paper(make):
    results = make.standard(
        cards=[card("kd", HINTON), card("better", paper="Someone 2020, a blog")]
    )
    text = manuscript(results)
    rows = {shown(r[0].spans): r[2].spans for r in grid_of(text, "strategies").rows}
    assert rows["kd"][0].kind == "citet"
    assert rows["kd"][0].text == "hinton2015distilling"
    assert shown(rows["better"]) == "Someone 2020, a blog"
    assert {e.key for e in text.entries} == {"hinton2015distilling", *methods()}


def test_what_the_limits_say_is_true_of_the_records(make):
    text = words_of(manuscript(make.standard(superseded=3)).body)
    assert "There are 3 seeds" in text
    assert "one checkpoint of the teacher taught all seeds" in text
    assert "one kind of machine (Xeon, device cpu)" in text
    assert "3 records of which there is a newer one" in text
    assert "Not significant does not mean equal" in text
    assert "failed" not in text.partition("Limits")[2].partition("Code")[0]

    one = make.results(
        make.teacher(),
        *make.strategy("scratch", [80.0]),
        *make.strategy("kd", [None]),
        make.record("x", 0, 81.0, environment={"cpu": "Other", "device": "cpu"}),
    )
    text = words_of(manuscript(one).body)
    assert "There is one seed" in text
    assert "2 machines" in text
    assert "Of 4 runs, 1 failed" in text


def test_students_of_two_teachers_are_said_to_be(make):
    other = {"teacher_runs": ("another",)}
    results = make.results(
        make.teacher(),
        *make.strategy("scratch", [80.0, 81.0]),
        *(make.record("kd", seed, 82.0, run=other) for seed in (0, 1)),
    )
    text = words_of(manuscript(results).body)
    assert "did not all learn from the same checkpoint" in text
    assert "one checkpoint of the teacher taught" not in text


def test_the_date_is_that_of_the_last_record(make):
    records = make.standard().records
    late = records[-1].model_copy(update={"finished_at": "2026-07-03T23:00:00+00:00"})
    text = manuscript(make.results(*records[:-1], late))
    assert writing.day(text.date) == "3 July 2026"


def settings(make, count):
    return make.results(
        make.teacher(),
        *(
            record
            for i in range(count)
            for label, value in (("scratch", 80.0), ("kd", 83.0), ("better", 85.0))
            for record in (
                make.record(
                    label,
                    seed,
                    value + seed * (i + 1) / 7,
                    run={"dataset": f"data{i}", "teacher_runs": (make.teacher().id,)},
                )
                for seed in range(2)
            )
        ),
    )


@pytest.mark.parametrize(("count", "appended"), [(3, False), (4, True)])
def test_details_of_many_settings_stand_in_an_appendix(make, count, appended):
    text = manuscript(settings(make, count))
    in_body = {b.slug for b in text.body if isinstance(b, Grid)}
    in_appendix = {b.slug for b in text.appendix if isinstance(b, Grid)}
    accuracy = {f"data{i}-big-small-accuracy" for i in range(count)}
    sizes = {f"data{i}-big-small-cost" for i in range(count)}
    assert accuracy <= in_body
    assert sizes <= (in_appendix if appended else in_body)
    assert not (in_body & in_appendix)
    assert ("Details of the settings" in words_of(text.appendix)) == appended
    assert ("stand in the appendix" in words_of(text.body)) == appended


def test_what_was_explained_once_is_referred_to(make):
    text = manuscript(settings(make, 2))
    first, second = (grid_of(text, f"data{i}-big-small-accuracy") for i in (0, 1))
    assert shown(first.caption).startswith("Top-1")
    assert [s.text for s in second.caption if s.kind == "table"] == [first.slug]
    taken = {grid.slug: grid for grid in text.taken}
    assert shown(taken[second.slug].caption) == shown(first.caption)


def test_every_table_can_be_taken(make):
    from kdbench.report.document import build

    results = settings(make, 1)
    document, text = build(results), manuscript(results)
    keys = {f"{p.section.slug}-{t.key}" for p in document.parts for t in p.tables}
    keys |= {f"provenance-{t.key}" for t in document.provenance}
    assert keys <= {grid.slug for grid in text.taken}
