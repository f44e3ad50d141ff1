"""The manuscript as data: text, columns, works cited, what is told."""

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


def wide(columns, rows=3, text="95.0 ± 6.2", level=0):
    own = tuple(
        Column(f"c{i}", f"Column {i}", "%", level=level) for i in range(columns)
    )
    first = Column("strategy", "Strategy", numeric=False)
    cells = (word("kd"), *(Cell(95.0, text) for _ in own))
    return Table("wide", "Wide", "Caption.", (first, *own), (Row(cells),) * rows)


def test_a_table_fits_by_its_least_needed_columns_first():
    (found,) = grids(wide_by_level(), "t")
    kept = [column.heading[0] for column in found.columns]
    assert 2 < len(kept) < 9
    assert kept == ["Strategy", *(f"Column {i}" for i in range(1, len(kept)))]
    gone = [f"Column {i}" for i in range(len(kept), 9)]
    assert shown(found.notes[-1]) == (
        "Left out for want of room, though the caption may speak of them: "
        f"{', '.join(gone)}."
    )
    assert not found.landscape


def test_narrow_letters_leave_room_for_more_columns():
    (broad,), (narrow,) = (
        grids(wide_by_level(), "t", narrow=factor) for factor in (1.0, 0.8)
    )
    assert 2 < len(broad.columns) < len(narrow.columns)
    long = Table("t", "T", "C.", *long_words())
    (broad,), (narrow,) = (grids(long, "t", narrow=factor) for factor in (1.0, 0.8))
    assert sum(c.width or 0 for c in narrow.columns) <= 57
    assert narrow.columns[0].width < broad.columns[0].width


def wide_by_level():
    columns = (
        Column("strategy", "Strategy", numeric=False),
        *(Column(f"c{i}", f"Column {i}", level=i) for i in range(1, 9)),
    )
    row = Row((word("kd"), *(Cell(1.0, "1234.0 ± 56.2 n.s.") for _ in range(8))))
    return Table("t", "T", "C.", columns, (row,))


def long_words():
    columns = (Column("s", "S", numeric=False), Column("r", "R", numeric=False))
    return columns, (Row((word("x" * 80), word("why " * 100))),)


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
                    cost={"train_s": 2.0},
                    run={"dataset": f"data{i}", "teacher_runs": (make.teacher().id,)},
                )
                for seed in range(2)
            )
        ),
    )


def test_details_of_very_many_settings_stand_elsewhere(make):
    text = manuscript(settings(make, 7))
    assert "stand in the page and the data files" in words_of(text.body)
    assert "Details of the settings" not in words_of(text.appendix)
    assert {f"data{i}-big-small-accuracy" for i in range(7)} <= {
        b.slug for b in text.body if isinstance(b, Grid)
    }


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


def test_findings_have_a_section_and_the_abstract_leads_with_the_first(make):
    from kdbench.report.document import build

    results = settings(make, 3)
    findings = [prose.sentence(words) for words in build(results).findings]
    assert len(findings) > 2
    text = manuscript(results)
    assert shown(text.abstract) == f"{findings[0]} {findings[-1]}"
    headings = [b.text for b in text.body if isinstance(b, Heading) and b.level == 1]
    assert headings[-2:] == ["Findings", "Limits"]
    listed = [b for b in text.body if isinstance(b, Bullets)][-2]
    assert [shown(item) for item in listed.items] == findings


def test_a_table_that_tells_nothing_is_left_out(make):
    one = make.results(
        make.teacher(), *make.strategy("scratch", [80.0]), *make.strategy("kd", [81.0])
    )
    text = manuscript(one)
    printed = [b for b in (*text.body, *text.appendix) if isinstance(b, Grid)]
    assert "digits-big-small-cost" not in {grid.slug for grid in printed}
    assert "digits-big-small-accuracy" in {grid.slug for grid in printed}
    for grid in printed:
        cells = [shown(slot.spans) for row in grid.rows for slot in row[1:]]
        assert set(cells) != {prose.DASH}, grid.slug


def test_every_table_can_be_taken(make):
    from kdbench.report.document import build

    results = settings(make, 1)
    document, text = build(results), manuscript(results)
    keys = {f"{p.section.slug}-{t.key}" for p in document.parts for t in p.tables}
    keys |= {f"provenance-{t.key}" for t in document.provenance}
    assert keys <= {grid.slug for grid in text.taken}
