"""results/README.md, which says what the published results are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.api import UserError
from kdbench.reference import lighten, page
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
        "| [digits-all](#cpu-2-cores-digits-all): [report.html](reference/cpu-2-cores/"
        "digits-all/report/report.html) | digits / a | 3 | 3 | 6 finished, 3 failed "
        "| 30 min (60 min) | `kdbench run digits-all` |"
    )
    assert "| no suite of this name is installed |" in text
    assert "- cpu: Xeon\n- device: cpu\n- threads: 2\n- torch: 2.13.0\n" in text
    title = (
        "### cpu-2-cores: digits-all\n\nReal scanned digits, embedded: every strategy"
    )
    assert f"{title}. 4 epochs" in text
    assert "### cpu-2-cores: mine\n\nmine. 4 epochs" in text
    assert "- On digits / b with 3 seeds: the teacher reaches 90.0" in text
    together = text.partition("### cpu-2-cores: all together")[2].partition("###")[0]
    assert "2 settings" in together


def test_a_damaged_record_is_no_published_one(published):
    folder = published / "reference" / "cpu-2-cores" / "mine"
    record = next(folder.glob("*.json"))
    record.write_text(record.read_text().replace("2026-01-01", "2027-01-01"))
    with pytest.raises(UserError, match=record.name):
        page(published)


def test_a_folder_without_results(tmp_path):
    (tmp_path / "reference" / "h200" / "report").mkdir(parents=True)
    with pytest.raises(UserError, match="no results in"):
        page(tmp_path)


def test_of_two_recipes_each_names_its_settings(make, tmp_path):
    folder = tmp_path / "reference" / "h200" / "mine"
    folder.mkdir(parents=True)
    write_record(folder, make.teacher())
    for pair, lr in (("a", 0.05), ("b", 0.01), ("c", 0.05)):
        recipe = make.recipe.model_copy(update={"lr": lr})
        for record in make.students(pair, {"kd": [83.0]}, recipe=recipe):
            write_record(folder, record)
    told = next(t for t in page(tmp_path).splitlines() if t.startswith("mine. "))
    first, second = told.removeprefix("mine. ").split("; ")
    assert first.startswith("digits / a, digits / c: 4 epochs, batch 64, sgd lr 0.05 ")
    assert second.startswith("digits / b: 4 epochs, batch 64, sgd lr 0.01 ")


def test_only_a_teacher_yet(make, tmp_path):
    folder = tmp_path / "reference" / "h200" / "cifar100"
    folder.mkdir(parents=True)
    write_record(folder, make.teacher())
    assert "No student has been trained yet." in page(tmp_path)


def test_pictures_are_made_light_once_and_look_the_same(tmp_path):
    colours = np.full((400, 300, 4), 255, np.uint8)  # opaque
    colours[..., 1] = np.linspace(0, 255, 400)[:, None]
    path = tmp_path / "plots" / "a.png"
    path.parent.mkdir()
    Image.fromarray(colours).save(path)
    lighten(tmp_path)
    light = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert picture.size == (300, 400)
        apart = np.asarray(picture.convert("RGB")).astype(int) - colours[..., :3]
    assert np.abs(apart).max() <= 2
    os.utime(path, (0, 0))
    lighten(tmp_path)
    assert path.stat().st_mtime == 0  # not written again
    assert path.read_bytes() == light


def test_colours_that_few_pixels_have_survive(tmp_path):
    """Those of a colour bar, beside many thousands of others."""
    shades = np.linspace([127, 60, 8], [255, 255, 255], 300)
    picture = np.linspace(0, 1, 400)[:, None, None] * shades
    picture[396:] = np.linspace([255, 255, 255], [45, 0, 75], 300)
    path = tmp_path / "a.png"
    Image.fromarray(picture.astype(np.uint8)).save(path)
    lighten(tmp_path)
    with Image.open(path) as light:
        bar = np.asarray(light.convert("RGB"))[396:].astype(int)
    assert np.abs(bar - picture[396:]).max() <= 10


@pytest.mark.slow
def test_the_committed_page_is_that_of_the_committed_records():
    """`make results` writes it; so nothing on it was typed by hand."""
    assert (ROOT / "results" / "README.md").read_text("utf-8") == page(ROOT / "results")


def test_committed_results_are_small():
    """Below 20 MB: records, tables, plots and pages, as git keeps them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("no git repository")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert files
    assert sum(path.stat().st_size for path in files if path.is_file()) < 20e6
