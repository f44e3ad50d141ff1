"""Every CSV file is read back by pandas, with the values of its table."""

import pandas as pd
import pytest

from kdbench.cards import Card, Hyperparameter
from kdbench.report import csv_files
from kdbench.report.across import data_tables
from kdbench.report.document import build

LABEL = 'x,"y"\n<b>|'


@pytest.fixture
def results(make):
    values = {
        "scratch": [80.0, 81.0, 82.0],
        "kd": [83.0, 83.0, 85.0],
        LABEL: [84.5, 85.5, None],
    }
    return make.results(
        make.teacher(),
        *make.students("a", values, system="First"),
        *make.students("b", values),
        cards=[
            Card(
                strategy=LABEL,
                code="c0de" * 3,
                family="logits",
                summary="Two\nlines.",
                formula="a = b\n  + c",
                tasks=("classification",),
                parameters=(Hyperparameter(name="t", default="4.0", note="> 0"),),
                references=("@article{a,\n title={A}}",),
            )
        ],
        speed=[make.speed("big", 6.0), make.speed("small", 2.0)],
    )


@pytest.fixture
def written(results, tmp_path):
    return {path.name: path for path in csv_files.render(results, tmp_path)}


def test_what_is_written(written):
    assert {
        "digits-a-accuracy.csv",
        "overall-matrix.csv",
        "overall-ranks.csv",
        "overall-wins.csv",
        "overall-win-matrix.csv",
        "overall-standings.csv",
        "overall-profile-curve.csv",
        "provenance-facts.csv",
        "strategies.csv",
        "systems.csv",
    } <= written.keys()


def test_pandas_reads_every_file_back(results, written):
    document = build(results)
    tables = {
        f"overall-{table.key}.csv": table
        for table in (*document.across, *data_tables(document.sections))
    }
    tables |= {
        f"{part.section.slug}-{table.key}.csv": table
        for part in document.parts
        for table in part.tables
    }
    assert tables.keys() <= written.keys()
    for name, path in written.items():
        frame = pd.read_csv(path)
        assert len(set(frame.columns)) == len(frame.columns)
        assert not [c for c in frame.columns if c.startswith("Unnamed")], name
        if name in tables:
            table = tables[name]
            assert list(frame.columns) == [column.key for column in table.columns]
            got = frame.astype(object).where(frame.notna(), None).to_numpy()
            assert len(got) == len(table.rows)
            for read, row in zip(got, table.rows, strict=True):
                for value, cell in zip(read, row.cells, strict=True):
                    assert same(value, cell.value), name


def same(read, value):
    """Equal as text, or as numbers to the last digits; both missing."""
    if read is None or value is None or isinstance(value, str):
        return value is None if read is None else str(read) == value
    return read == pytest.approx(value, rel=1e-14)


def test_a_gain_is_not_rounded(written):
    frame = pd.read_csv(written["overall-matrix.csv"]).set_index("strategy")
    assert frame.loc["kd", "over_scratch"] == pytest.approx(8 / 3, abs=1e-12)
    assert frame.loc[LABEL, "digits-a_n"] == 2


def test_cards_are_written_in_full(written):
    frame = pd.read_csv(written["strategies.csv"]).set_index("strategy")
    card = frame.loc[LABEL]
    assert card["summary"] == "Two\nlines."
    assert card["formula"] == "a = b\n  + c"
    assert card["parameters"] == "t = 4.0 (> 0)"
    assert card["references"] == "@article{a,\n title={A}}"
    assert set(frame.index) == {"scratch", "kd", LABEL}


def test_without_students_there_is_only_provenance(make, tmp_path):
    names = {path.name for path in csv_files.render(make.results(), tmp_path)}
    assert names
    assert all(name.startswith("provenance-") for name in names)
