"""The files of a report: complete, escaped, self-contained, the same every time."""

import csv
import doctest
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from kdbench.api import Renderer, UserError
from kdbench.report import BUILTIN, kdbench_renderers, write
from kdbench.report.markdown import escape
from kdbench.report.plots.style import spread_out
from kdbench.report.terminal import print_tables
from kdbench.store import write_record

NASTY = 'x<b>|_"$a_1$&'


@pytest.fixture(scope="module")
def results(make):
    curves = {"top1": [10.0, 50.0, None, 80.0]}
    records = [
        record.model_copy(update={"curves": curves})
        for record in make.standard().records
    ]
    nasty = make.strategy(NASTY, [84.0, None], reason="<script>alert(1)</script> | bad")
    return make.results(
        *records,
        *nasty,
        speed=[make.speed("big", 6.0), make.speed("small", 2.0)],
        damaged=[(Path("x<i>.json"), "half | written")],
        superseded=3,
    )


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    files = write(results, folder, BUILTIN)
    assert all(file.is_file() for file in files)
    return folder


def test_what_is_written(written):
    names = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    assert {
        "report.html",
        "report.md",
        "csv/digits-big-small-accuracy.csv",
        "csv/provenance-facts.csv",
        "plots/digits-big-small-accuracy.svg",
        "plots/digits-big-small-curves.png",
        "plots/overall-digits-latency.svg",
    } <= names
    assert [renderer.name for renderer in kdbench_renderers()] == [
        "plots",
        "csv",
        "markdown",
        "html",
        "latex",
        "pdf",
    ]


def test_the_page_loads_nothing(written):
    page = (written / "report.html").read_text()
    assert not re.search(r"""\b(?:src|href|action)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"url\((?!#)|@import|https?://", page)


def test_the_page_escapes_labels_and_reasons(written):
    page = (written / "report.html").read_text()
    assert "x&lt;b&gt;|_&#34;$a_1$&amp;" in page
    assert "<b>" not in page
    assert "<script>alert" not in page
    assert "x<i>" not in page


def test_the_page_is_accessible(written):
    page = (written / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert target in ids
    assert len(re.findall(r"<table>", page)) == len(re.findall(r"<caption", page))
    assert not re.search(r"<th(?! scope|ead)", page)
    for svg in re.findall(r"<svg[^>]*>", page):
        assert 'role="img"' in svg
        assert "aria-label=" in svg


def test_svg_files_are_well_formed_and_the_same_every_time(results, written, tmp_path):
    again = tmp_path / "again"
    write(replace(results), again, BUILTIN)  # another object: all is drawn again
    for svg in (written / "plots").glob("*.svg"):
        ET.parse(svg)  # noqa: S314  # our own file
        assert svg.read_bytes() == (again / "plots" / svg.name).read_bytes()
    assert (again / "report.html").read_bytes() == (
        written / "report.html"
    ).read_bytes()


def test_markdown_cells_stay_in_their_columns(written):
    text = (written / "report.md").read_text()
    widths = set()
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = block.splitlines()
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1, block
    assert widths
    assert "<" not in text
    assert "](plots/digits-big-small-accuracy.png)" in text


def test_markdown_escape():
    assert escape("a_b*c|d<e>\n`f`") == r"a\_b\*c\|d&lt;e&gt; \`f\`"


def test_csv_holds_unrounded_values(written):
    file = (written / "csv/digits-big-small-accuracy.csv").read_text()
    rows = {row["strategy"]: row for row in csv.DictReader(io.StringIO(file))}
    assert float(rows["kd"]["over_scratch"]) == pytest.approx(8 / 3)
    assert rows["scratch"]["over_scratch"] == ""
    assert rows[NASTY]["status"] == "failed (1 of 2)"


def test_provenance_counts_what_was_left_out(written):
    text = (written / "report.md").read_text()
    assert "Superseded records left out: 3" in text
    assert "Damaged files left out: 1" in text
    assert r"half \| written" in text


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_terminal_fits_its_width(results, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_tables(results, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any("81.00 ± 2.48" in line for line in lines)


def test_terminal_without_unicode(results):
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_tables(results, Console(width=100, file=file))
    file.flush()
    assert b"81.00 +/- 2.48" in file.buffer.getvalue()


@pytest.mark.parametrize("renderer", BUILTIN, ids=lambda r: r.name)
def test_unusual_results_render(make, tmp_path, renderer):
    """Nothing at all, a teacher alone, nothing finished, one epoch, one seed."""
    cases = [
        make.results(),
        make.results(make.teacher()),
        make.results(*make.strategy("kd", [None])),
        make.results(*make.strategy("kd", [80.0], curves={"top1": [80.0]})),
        make.results(*make.strategy("kd", [80.0], curves={"top1": [None, None]})),
        make.results(*make.strategy("kd", [80.0], measures={"top1": None})),
        make.results(*make.strategy("kd", [0.0, 0.0]), *make.strategy("a", [0.0])),
    ]
    for place, results in enumerate(cases):
        write(results, tmp_path / str(place), [renderer])
        print_tables(results, Console(width=80, file=io.StringIO()))


def test_a_broken_renderer_is_named_and_stops_no_other(results, tmp_path):
    def broken(results, folder):
        raise KeyError("x")

    renderers = [Renderer(name="mine", summary="", render=broken), *BUILTIN[1:3]]
    with pytest.raises(UserError, match="renderer 'mine': KeyError"):
        write(results, tmp_path, renderers)
    assert (tmp_path / "report.md").exists()


def test_write_refuses_mixed_protocols(make, tmp_path):
    old = make.record("kd", 1, 80.0, run={"protocol": "0"})
    results = make.results(make.record("kd", 0, 80.0), old)
    with pytest.raises(UserError, match="different protocol versions"):
        write(results, tmp_path / "new", BUILTIN)
    assert not (tmp_path / "new").exists()


def test_a_report_needs_no_torch(results, tmp_path):
    for record in (*results.records, *results.speed):
        write_record(tmp_path / "in", record)
    code = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from rich.console import Console
from kdbench.report import BUILTIN, write
from kdbench.report.terminal import print_tables
from kdbench.frames import load_results
from kdbench.store import load
heavy = {"matplotlib", "pandas", "jinja2", "scipy"} & set(sys.modules)
assert not heavy, heavy
found = load([Path(sys.argv[1])])
write(found, Path(sys.argv[2]), BUILTIN)
print_tables(found, Console())
assert len(load_results(sys.argv[1])) == len(found.records)
assert "matplotlib.pyplot" not in sys.modules
"""
    command = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_spread_out_keeps_order_and_distance():
    moved = spread_out([3.0, 1.0, 1.1, 1.2, 9.0], 0.5)
    ordered = sorted(moved)
    assert [moved.index(v) for v in ordered] == [1, 2, 3, 0, 4]
    assert all(b - a >= 0.5 - 1e-9 for a, b in pairwise(ordered))
    assert (moved[0], moved[4]) == (3.0, 9.0)


@pytest.mark.parametrize(
    "module",
    [
        "stats.seeds",
        "stats.items",
        "stats.power",
        "stats.ranks",
        "report.formats",
        "report.plots.style",
    ],
)
def test_examples_in_docstrings(module):
    found = doctest.testmod(import_module(f"kdbench.{module}"))
    assert found.attempted
    assert not found.failed
