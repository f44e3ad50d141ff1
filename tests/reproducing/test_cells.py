"""What is read from published folders, and drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from kdbench.api import UserError
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.reproducing.cells import (
    Cell,
    Found,
    draw,
    folders_in,
    keep_possible,
    read_cells,
)
from kdbench.store import read_record, write_record


def cells_of(record, folder, count, seconds=60.0, start=0):
    return [
        Cell(folder, record(seed=start + k, cost={"train_s": seconds}), ())
        for k in range(count)
    ]


@pytest.fixture
def two(record, tmp_path):
    """A folder of 40 cells and one of 4."""
    return cells_of(record, tmp_path / "a", 40) + cells_of(record, tmp_path / "b", 4)


def test_a_draw_is_repeatable_and_others_differ(two):
    first = draw(two, 5, 3)
    for seed in range(4):  # whatever order they come in, and wherever they lie
        mixed = Random(seed).sample([replace(cell) for cell in two], len(two))  # noqa: S311
        assert draw(mixed, 5, 3) == first
    assert len({tuple(c.title for c in draw(two, 5, k).cells) for k in range(8)}) > 1
    assert len(set(map(id, first.cells))) == 5


def test_cells_are_drawn_evenly_over_folders(two):
    for number in range(10):
        counts = Counter(cell.folder.name for cell in draw(two, 6, number).cells)
        assert counts == {"a": 3, "b": 3}
    odd = Counter(draw(two, 1, number).cells[0].folder.name for number in range(60))
    assert all(odd[name] > 15 for name in "ab")
    counts = Counter(cell.folder.name for cell in draw(two, 20, 0).cells)
    assert counts == {"a": 16, "b": 4}


def test_every_cell_of_a_folder_is_as_likely(record, tmp_path):
    cells = cells_of(record, tmp_path, 5)
    drawn = Counter(draw(cells, 1, k).cells[0].run.seed for k in range(500))
    assert all(60 < drawn[seed] < 140 for seed in range(5))


def test_a_budget_leaves_out_what_is_too_long(record, tmp_path):
    long = cells_of(record, tmp_path, 3, seconds=500.0)
    short = cells_of(record, tmp_path, 9, seconds=50.0, start=3)
    drawn = draw(long + short, 12, 0, budget_s=220.0)
    assert drawn.too_long == 3
    assert (len(drawn.cells), drawn.seconds) == (4, 200.0)
    assert not {c.record.id for c in long} & {c.record.id for c in drawn.cells}
    assert draw(long, 5, 0, budget_s=220.0).cells == ()


def test_a_shared_teacher_costs_once(record, tmp_path):
    teacher = record(
        "teacher", teachers=(), cost={"train_s": 100.0, "evaluation_s": 1.0}
    )
    other = record("teacher", seed=1, teachers=(), cost={"train_s": 100.0})
    cells = [
        Cell(tmp_path, record(seed=k, cost={"train_s": 10.0}), (which,))
        for k, which in enumerate((teacher, teacher, other))
    ]
    assert sum(cells[0].costs.values()) == 111.0
    assert draw(cells[:2], 2, 0).seconds == 121.0
    assert draw(cells, 3, 0).seconds == 231.0
    assert len(draw(cells, 3, 0, budget_s=130.0).cells) < 3


def test_seeds_of_one_description_stand_together(published):
    found = read_cells([published], {})
    assert {(c.run.label, c.run.seed) for c in found.cells} == {
        (label, seed) for label in ("scratch", "kd") for seed in range(3)
    }
    for cell in found.cells:
        same = [c.value for c in found.cells if c.run.label == cell.run.label]
        assert sorted(cell.seeds) == sorted(same)
        assert [teacher.id for teacher in cell.teachers] == list(cell.run.teacher_runs)
    assert not found.problems


def test_runs_that_did_not_finish_are_no_cells(copy, edit):
    def failed(one):
        return one.run.label == "kd" and one.run.seed == 1

    edit(failed, lambda one: {"status": "failed", "reason": "so"})
    found = read_cells([copy], {"strategy": ["kd"]})
    assert sorted(cell.run.seed for cell in found.cells) == [0, 2]
    assert all(len(cell.seeds) == 2 for cell in found.cells)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("kd", {"kd"}),
        ("kd[temperature=2]", {"kd", "kd[temperature=2]"}),
    ],
)
def test_filters_take_labels_and_strategies(record, tmp_path, label, names):
    write_record(tmp_path, record(label))
    write_record(tmp_path, record("scratch"))
    for name in names:
        found = read_cells([tmp_path], {"strategy": [name]})
        assert [cell.run.label for cell in found.cells] == [label]
    chosen = {"strategy": [], "pair": ["digits-mlp"], "dataset": ["digits"]}
    assert len(read_cells([tmp_path], chosen).cells) == 2
    with pytest.raises(UserError, match="did you mean 'scratch'"):
        read_cells([tmp_path], {"strategy": ["scrach"]})
    with pytest.raises(UserError, match="unknown dataset 'mnist'"):
        read_cells([tmp_path], {"dataset": ["mnist"]})


def test_a_compressed_student_is_not_the_strategy_itself(record, tmp_path):
    plain = record("kd")
    write_record(tmp_path, plain)
    made = record("kd/int8", strategy="kd", compression="int8", source=plain.id)
    write_record(tmp_path, made)
    [cell] = read_cells([tmp_path], {"strategy": ["kd"]}).cells
    assert cell.run.label == "kd"
    [cell] = read_cells([tmp_path], {"strategy": ["kd/int8"]}).cells
    assert cell.sources == (plain,)
    assert len(read_cells([tmp_path], {}).cells) == 2
    (tmp_path / f"{plain.id}.json").unlink()
    with pytest.raises(UserError, match=f"no record of its source {plain.id}"):
        read_cells([tmp_path], {})


def test_a_place_stands_for_the_folders_below_it(copy):
    other = copy.parent / "other" / "suite"
    other.mkdir(parents=True)
    (other / "0123456789ab.json").write_text("{}")
    (copy / "report").mkdir()
    (copy / "report" / "0123456789ab.json").write_text("{}")  # below one of records
    (copy.parent / "package.json").write_text("{}")  # somebody else's
    (copy.parent / "loop").symlink_to(copy.parent)
    assert folders_in([copy.parent]) == [copy, other]
    assert folders_in([copy, copy.parent / "digits"]) == [copy]
    with pytest.raises(UserError, match=r"did you mean '.*reference/digits'"):
        folders_in([copy.parent / "digit"])
    (copy.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"no record in .*empty"):
        folders_in([copy.parent / "empty"])


def test_a_damaged_record_is_a_problem_and_the_others_are_cells(copy):
    [path, *_] = [p for p in copy.glob("*.json") if '"label": "kd"' in p.read_text()]
    text = path.read_text()
    path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
    found = read_cells([copy], {})
    assert len(found.cells) == 5
    [problem] = found.problems
    assert str(path) in problem
    assert "edited" in problem or "checksum" in problem


def test_a_student_without_its_teachers_record_is_a_problem(copy):
    [path] = [
        p for p in copy.glob("*.json") if '"strategy": "teacher"' in p.read_text()
    ]
    path.unlink()
    with pytest.raises(UserError, match=f"no record of its teacher {path.stem}"):
        read_cells([copy], {})


def test_records_without_a_checksum_are_said(copy):
    path = next(copy.glob("*.json"))
    first, _, rest = path.read_text().split("\n", 2)
    path.write_text(f"{first}\n{rest}")
    found = read_cells([copy], {})
    assert "1 record without a checksum, which others there have" in found.problems[0]
    for path in copy.glob("*.json"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(x for x in lines if not x.startswith(' "checksum"')))
    found = read_cells([copy], {})
    assert "without a checksum, as older versions wrote them" in found.notes[0]
    assert not found.problems


def test_a_student_of_nobody_is_a_problem(copy):
    for path in copy.glob("*.json"):
        one = read_record(path)
        if isinstance(one, Record) and one.run.strategy == "kd":
            run = one.run.model_copy(update={"teachers": ()})
            path.unlink()
            write_record(copy, one.model_copy(update={"run": run, "id": run.id}))
            break
    [problem] = read_cells([copy], {}).problems
    assert "it names no student or no teacher" in problem


def test_what_cannot_be_trained_here_is_left_out_and_said(record, host, tmp_path):
    cells = [
        Cell(tmp_path, record("kd"), ()),
        Cell(tmp_path, record("kdd"), ()),
        Cell(tmp_path, record("kdd", seed=1), ()),
        Cell(tmp_path, record("kd", dataset="mnist"), ()),
        Cell(tmp_path, record("kd", students=("mlp_of_nobody",)), ()),
        Cell(tmp_path, record("kd", environment={"device": "cuda:77"}), ()),
        Cell(tmp_path, record("kd/x", strategy="kd", compression="x"), ()),
    ]
    found = keep_possible(Found(cells=list(cells)), host, None)
    assert found.cells == cells[:1]
    assert found.items["digits"] > 1000
    said = "\n".join(found.left_out)
    assert "2 cells: unknown strategy 'kdd'" in said
    assert "1 cell: dataset 'mnist' needs files" in said
    assert "unknown model 'mlp_of_nobody'" in said
    assert "device 'cuda:77' is not there" in said
    assert "unknown compression 'x'" in said


def test_where_nothing_is_left_the_missing_plugin_is_named(record, tmp_path):
    bare = Host(only=())
    cells = [Cell(tmp_path, record("dkd"), ())]
    with pytest.raises(UserError, match=r"unknown strategy 'dkd'.*\n.*no-plugins"):
        keep_possible(Found(cells=cells), bare, None)
