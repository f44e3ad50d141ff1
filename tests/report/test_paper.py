"""report.pdf: every odd result and name is set, the same bytes each time."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from kdbench.api import UserError
from kdbench.cards import Card
from kdbench.records import Headline
from kdbench.report import latex, paper
from kdbench.report.typesetting.prose import BREAK, clean

NASTY = (
    r"a_b%c&d#e$f{g}h~i^j\k",
    "<script>alert(1)</script>",
    '#let x = 1; *bold* _it_ `raw` $x^2$ @ref <label> // no /* no */ "q" [b] = -',
    "Ωμέγα λ ± é ł ß Жук",
    "kd[" + ",".join(f"weight_{i}=0.{i}" for i in range(8)) + "]",
)
BIB = r"""@inproceedings{some2020thing, author = {Gr{\"u}n, Anna and Łoś, J.},
  title = {A {KD} Thing: 50\% \& \$5 $x$ #eval("1") a_b ~ ^}, booktitle = {Proc. 1},
  year = 2020, doi = {10.1000/ab}, url = {https://example.org/a_b}}"""


@pytest.fixture
def results(make):
    nasty = [
        record
        for label in NASTY
        for record in make.strategy(label, [84.0, 83.5, None], reason=f"{label} why")
    ]
    cards = [
        Card(
            strategy=label.partition("[")[0],
            code="c0de" * 3,
            family="logits",
            summary=label,
            references=(BIB,) if label == NASTY[0] else (),
        )
        for label in NASTY
    ]
    return make.results(*make.standard().records, *nasty, cards=cards)


def text_of(path):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    done = subprocess.run(
        ["pdftotext", "-layout", str(path), "-"], capture_output=True, check=True
    )
    return done.stdout.decode()


def squeezed(text):
    """Without what line breaks and columns put between the parts of a name."""
    return re.sub(r"\s+", "", text.replace(BREAK, ""))


def test_nasty_names_stand_in_it_as_they_are(results, tmp_path):
    (path,) = paper.render(results, tmp_path)
    assert path == tmp_path / "report.pdf"
    text = text_of(path)
    for label in NASTY[:2]:
        assert label in squeezed(text)
    summaries = squeezed(raw_text(path))
    for label in NASTY:
        assert squeezed(clean(label)) in summaries
    assert "Grün" in text
    assert "References" in text
    assert "AKDThing:50%&$5x#eval" in squeezed(text)


def raw_text(path):
    done = subprocess.run(
        ["pdftotext", "-raw", path, "-"], capture_output=True, check=True
    )
    return done.stdout.decode()


def error_only(make):
    metres = Headline(
        name="rmse", title="RMSE", unit="m", gain_unit="m", better="lower"
    )
    measures = {"measures": {"rmse": 4.5}, "headline": metres}
    return make.results(
        *make.strategy("scratch", [0.0, 0.0], **measures),
        *make.strategy("only", [0.0, 0.0], **measures),
    )


def one_seed(make):
    return make.results(
        make.teacher(), *make.strategy("scratch", [80.0]), *make.strategy("x", [81.0])
    )


def failed_only(make):
    return make.results(*make.strategy("scratch", [None]), *make.strategy("x", [None]))


def teacher_only(make):
    return make.results(make.teacher())


def nothing(make):
    return make.results()


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (error_only, "lower is better"),
        (one_seed, "There is one seed"),
        (failed_only, "loss is not finite"),
        (teacher_only, "No student run yet"),
        (nothing, "No student run yet"),
    ],
)
def test_odd_results_are_set(odd, told, make, tmp_path):
    (path,) = paper.render(odd(make), tmp_path)
    assert path.read_bytes().startswith(b"%PDF")
    assert told in " ".join(text_of(path).split())


def test_equal_results_give_equal_bytes(make, tmp_path):
    (first,) = paper.render(make.standard(), tmp_path)
    before = first.read_bytes()
    (second,) = paper.render(make.standard(), tmp_path)
    assert second.read_bytes() == before
    assert set(re.findall(rb"D:(\d{8})", before)) == {b"20260101"}  # the last record's
    (empty,) = paper.render(make.results(), tmp_path)
    assert set(re.findall(rb"D:(\d{8})", empty.read_bytes())) <= {b"19700101"}


def test_what_aligns_numbers_is_not_seen(make, tmp_path):
    (path,) = paper.render(make.standard(), tmp_path)
    rows = [line.split() for line in text_of(path).splitlines() if line]
    families = "\u2013", "logits"  # a column that its letters leave room for
    assert ["teacher", families[0], "90.00", "\u2013"] in [row[:4] for row in rows]
    assert ["scratch", families[1], "81.00", "±", "2.48"] in [row[:5] for row in rows]


def test_both_formats_have_the_same_blocks(results, tmp_path):
    latex.render(results, tmp_path)
    paper.render(results, tmp_path)
    page = (tmp_path / "report.tex").read_text()
    text = text_of(tmp_path / "report.pdf")
    for word, pattern in (("Table", r"\\label\{tab:"), ("Figure", r"\\label\{fig:")):
        numbers = set(re.findall(rf"^\s*{word} (\d+):", text, re.MULTILINE))
        assert len(numbers) == len(re.findall(pattern, page))


def test_only_fonts_that_come_with_typst_are_asked_for(make, tmp_path):
    typst = pytest.importorskip("typst")
    families = typst.Fonts(include_system_fonts=False).families()
    asked = re.search(r"#set text\(font: \(([^)]*)\)", paper.TEMPLATE.read_text())
    assert asked
    assert set(re.findall(r'"([^"]+)"', asked[1])) <= set(families)


def test_without_typst_one_is_told_how_to_get_it(make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(UserError, match="pip install typst"):
        paper.render(make.standard(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_typst_reads_is_data(results, tmp_path):
    from kdbench.report.typesetting.manuscript import manuscript

    paper._lay_out(manuscript(results), tmp_path)
    assert (tmp_path / "report.typ").read_bytes() == paper.TEMPLATE.read_bytes()
    content = json.loads((tmp_path / "manuscript.json").read_text())
    assert {block["kind"] for block in content["body"]} == {
        "heading",
        "paragraph",
        "bullets",
        "grid",
        "picture",
    }
