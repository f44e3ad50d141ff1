"""report.tex: complete, escaped, and typeset by pdfTeX as it is."""

import re
import shutil
import subprocess
import unicodedata
from functools import lru_cache

import pytest
from matplotlib.figure import Figure

from kdbench.cards import Card, Hyperparameter
from kdbench.records import Headline
from kdbench.report import latex
from kdbench.report.plots.style import Plot, drawn
from kdbench.report.typesetting import manuscript, tex

LONG = "kd[" + ",".join(f"weight_{i}=0.{i}" for i in range(8)) + "]"
NASTY = (
    r"a_b%c&d#e$f{g}h~i^j\k",
    "<script>alert('x')</script>",
    "[a] * || \"q\" `b` -- --- ?` !` << >> ,, ''",
    "\\input{/etc/passwd}\\end{document}",
    "Ωμέγα λ ± ﬁ é ł ß 日本 😀 \u202e \x07",
    LONG,
)
BIB = r"""@inproceedings{some2020thing, author = {Gr{\"u}n, Åsa and Łoś, J. and 王, 力},
  title = {A {KD} Thing, 50\% \& \input{/etc/passwd} more_less}, booktitle = {Proc. #1},
  year = 2020, doi = {10.1000/a_b}, url = {https://example.org/a_b}}"""


@lru_cache
def picture():
    return drawn(Plot("accuracy", "x", "X", "x", "X.", lambda: Figure((5, 3))))


@pytest.fixture
def _undrawn(monkeypatch):
    """Every figure is one empty frame: drawing them takes the most time by far."""
    monkeypatch.setattr(manuscript, "drawn", lambda plot: picture())


@pytest.fixture
def results(make):
    curves = {"top1": [10.0, 50.0, None, 80.0]}
    nasty = [
        record
        for number, label in enumerate(NASTY)
        for record in make.strategy(
            label, [84.0, 83.0 + number, None], reason=f"{label} <b> \\ {{ 50%"
        )
    ]
    cards = [
        Card(
            strategy=label,
            code="c0de" * 3,
            family="logits_%",
            summary=f"Matches {label} & more.",
            paper="Nobody & Co. 2020",
            parameters=(Hyperparameter(name="a_b", default="1e-3"),),
            references=(BIB,) if label == NASTY[0] else (),
        )
        for label in ("kd", *NASTY)
    ]
    standard = make.standard(cards=cards)
    records = [r.model_copy(update={"curves": curves}) for r in standard.records]
    return make.results(*records, *nasty, cards=cards)


@pytest.fixture
def written(_undrawn, results, tmp_path):
    files = latex.render(results, tmp_path)
    assert all(file.is_file() for file in files)
    return tmp_path


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


ODD = [error_only, one_seed, failed_only, teacher_only, nothing]


def compile_in(folder, *, once=False):
    if shutil.which("pdflatex") is None or shutil.which("bibtex") is None:
        pytest.skip("pdflatex and bibtex are not installed")
    typeset = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    rest = [] if once else [["bibtex", "report"], typeset, typeset]
    for command in (typeset, *rest):
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]
    return (folder / "report.log").read_text(errors="replace")


def assert_sound(log):
    assert "multiply" not in log
    wide = [float(n) for n in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", log)]
    assert max(wide, default=0.0) < 3.0
    assert "Overfull \\vbox" not in log


@pytest.mark.filterwarnings("ignore:Glyph")
def test_it_compiles_as_it_is(results, tmp_path):
    latex.render(results, tmp_path)
    log = compile_in(tmp_path)
    assert_sound(log)
    assert "undefined" not in log
    assert "Missing character" not in log
    assert (tmp_path / "report.bbl").read_text().count("\\bibitem") >= 8


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.usefixtures("_undrawn")
def test_odd_results_compile(odd, make, tmp_path):
    latex.render(odd(make), tmp_path)
    assert_sound(compile_in(tmp_path, once=True))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.usefixtures("_undrawn")
def test_odd_results_are_written(odd, make, tmp_path):
    files = latex.render(odd(make), tmp_path)
    assert {"report.tex", "report.bib"} <= {file.name for file in files}
    check_structure((tmp_path / "report.tex").read_text())


def check_structure(page):
    """Environments and braces balance once what is escaped is out of the way."""
    page = re.sub(r"(?m)^%.*$", "", page)
    plain = re.sub(r"\\[\\{}%&$#_]", "", page)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    open_ones = []
    for kind, name in re.findall(r"\\(begin|end)\{([\w*]+)\}", plain):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert open_ones == []


def test_the_page_is_sound_without_compiling(written):
    page = (written / "report.tex").read_text()
    assert page.isascii()
    check_structure(page)
    for name in re.findall(r"\\(?:input|includegraphics\[[^]]*\])\{([^}]*)\}", page):
        assert (written / name).is_file(), name
    assert r"\input{/etc" not in page
    assert page.count(r"\end{document}") == 1
    tables = [file.read_text() for file in (written / "tables").glob("*.tex")]
    lists = re.findall(r"\\cite[pt]\{([^}]*)\}", "".join([page, *tables]))
    cited = {key for keys in lists for key in keys.split(",")}
    known = re.findall(r"^@\w+\{([^,]+),", (written / "report.bib").read_text(), re.M)
    assert cited == set(known)
    assert "some2020thing" in cited
    assert "Top-1 test accuracy at the last epoch: mean over seeds" in page
    labels = re.findall(r"\\label\{([^}]*)\}", page)
    assert len(labels) == len(set(labels))
    assert set(re.findall(r"\\ref\{([^}]*)\}", page)) <= set(labels)


def test_a_single_table_needs_booktabs_only(written):
    files = sorted((written / "tables").glob("*.tex"))
    names = {file.stem for file in files}
    assert {"digits-big-small-accuracy", "digits-big-small-cost", "facts"} <= names
    text = "".join(rf"\input{{tables/{f.name}}}\par" for f in files)
    page = r"\documentclass{article}\usepackage{booktabs}\usepackage{natbib}"
    page += rf"\begin{{document}}\scriptsize {text}\end{{document}}"
    for file in files:
        check_structure(file.read_text())
        assert "longtable" not in file.read_text()
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    (written / "one.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "one.tex"]
    done = subprocess.run(command, cwd=written, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


@pytest.mark.usefixtures("_undrawn")
def test_a_long_table_runs_over_pages_with_its_heading(make, tmp_path):
    many = [
        record
        for number in range(60)
        for record in make.strategy(f"s{number:02}", [70 + number / 10, 70.5])
    ]
    latex.render(make.results(*make.standard().records, *many), tmp_path)
    page = (tmp_path / "report.tex").read_text()
    (table,) = re.findall(
        r"\\begin\{longtable\}.{0,80}\n(\\caption\{\\textbf\{Accuracy.*?)\\end\{longt",
        page,
        re.DOTALL,
    )
    assert "Top-1 test accuracy at the last epoch" in table.partition("endfirsthead")[0]
    assert table.count("Strategy}") == 2
    assert r"\textbf{85.17" in table
    assert_sound(compile_in(tmp_path, once=True))


def test_equal_results_give_equal_files(results, written, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for file in latex.render(results, other):
        assert file.read_bytes() == (written / file.relative_to(other)).read_bytes()


def test_specials_are_escaped():
    assert tex.escape(r"a_b%c&d#e$f{g}h~i^j\k") == (
        r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
    )
    assert tex.escape("[x]*") == "{[}x{]}{*}"  # no options behind the end of a row
    assert tex.escape("---") == "-{}-{}-"
    assert tex.escape("日本") == r"U+65E5\allowbreak{}U+672C\allowbreak{}"
    assert tex.escape("é ł ß ć") == r"\'{e} \l{} \ss{} \'{c}"
    assert tex.escape("\u03b1\u03a9\u0391\u03ad") == r"$\alpha$$\Omega$A$\epsilon$"


def test_every_character_becomes_plain_tex():
    for code in [*range(0x20, 0x3000), 0x1F600, 0x4E00]:
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cn"):
            continue
        escaped = tex.escape(character)
        assert escaped.isascii()
        check_structure(escaped)
        if not character.isascii():
            assert len(escaped) < 120
