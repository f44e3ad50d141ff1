"""results/README.md, which says what the published results are."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.reference import page
from kdbench.store import write_record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def published(make, tmp_path):
    """Two suites of one machine class, the second without a name that is known."""
    for name, pair in (("digits-all", "a"), ("mine", "b")):
        folder = tmp_path / "reference" / "cpu-2-cores" / name
        folder.mkdir(parents=True)
        values = {
            "scratch": [80.0, 81.0, 82.0],
            "kd": [83.0, 83.0, 85.0],
            "failing": [None, None, None],
        }
        costs = {"train_s": 3600.0, "train_shared_s": 1800.0}
        write_record(folder, make.teacher(cost=costs))
        for record in make.students(pair, values):
            write_record(folder, record)
    return tmp_path


def test_what_there_is_and_what_it_says(published):
    report = published / "reference" / "cpu-2-cores" / "digits-all" / "report"
    report.mkdir()
    (report / "report.html").write_text("")
    text = page(published)
    row = next(line for line in text.splitlines() if line.startswith("| [digits-all]"))
    assert row == (
        "| [digits-all](#digits-all): [report.html](reference/cpu-2-cores/digits-all/"
        "report/report.html) | digits / a | 3 | 3 | 6 finished, 3 failed "
        "| 0.5 h (each alone: 1.0 h) | `kdbench run digits-all` |"
    )
    assert "- cpu: Xeon\n- torch: 2.13.0\n- trained: 2026-01-01\n" in text
    assert "### digits-all\n\nReal scanned digits, embedded: every strategy. 4" in text
    assert "### mine\n\nmine. 4 epochs" in text
    assert "- On digits / b with 3 seeds: the teacher reaches 90.0" in text
    together = text.partition("### All of them together")[2].partition("###")[0]
    assert "2 settings" in together


def test_a_damaged_record_is_no_published_one(published):
    folder = published / "reference" / "cpu-2-cores" / "mine"
    record = next(folder.glob("*.json"))
    record.write_text(record.read_text().replace("2026-01-01", "2027-01-01"))
    with pytest.raises(UserError, match=record.name):
        page(published)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match="no results in"):
        page(tmp_path)


@pytest.mark.slow
def test_the_committed_page_is_that_of_the_committed_records():
    """`make results` writes it; so nothing on it was typed by hand."""
    assert (ROOT / "results" / "README.md").read_text("utf-8") == page(ROOT / "results")


def test_committed_results_are_small():
    files = list((ROOT / "results" / "reference").rglob("*.json"))
    assert files
    assert sum(path.stat().st_size for path in files) < 15e6
