"""From what a strategy says of its paper to an entry of a bibliography."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import bibtexparser
import pytest

from kdbench.catalogue import papers_of, references
from kdbench.citations import ARXIV, YEAR, cited, read, shipped

ROOT = Path(__file__).parents[1]
FILES = sorted(
    [ROOT / "kdbench" / "references.bib", *ROOT.glob("plugins/*/*/references.bib")]
)
KNOWN = read((ROOT / "kdbench" / "references.bib").read_text())

SHIPPED = r"""
@string{cvpr = "Conference on Vision (CVPR)"}
@inproceedings{smith2020deep,
  author = "Sm{\'\i}th, Jos{\'e} and Oord, A{\"a}ron van den and others",
  title = {Deep {KD}, 50\% \& more}, booktitle = cvpr, year = 2020, month = jan,
  abstract = {Long. arXiv:9999.99999}, file = {:/home/jose/paper.pdf:PDF}}
@article{smith2020wide, author = {Smith, Jane}, title = {Wide}, year = {2020},
  journal = {Transactions on Vision (TKD)}}
@article{jones2021a, author = {Ann Jones}, title = {First}, year = {2021},
  journal = {arXiv preprint arXiv:2101.00001v3}}
@article{jones2021b, author = {Ann Jones}, title = {Second}, year = {2021},
  eprint = {2101.00002}, archivePrefix = {arXiv}}
@article{kim2023, author = {Kim, Jo}, title = {Third}, year = {2023},
  eprint = {2301.00001}, archivePrefix = {arXiv}}
@article{oord2018, author = {van den Oord, A.}, title = {Vons}, year = {2018}}
@article{broken, title = {never closed
@misc{after2022, author = {After}, title = {Fine}, year = {2022}, journal = unexplained}
"""


# --- the bundled files ----------------------------------------------------------------


def strategies(host):
    return [offer.thing for offer in host.all("strategies")]


def test_every_bundled_paper_has_its_entry(host):
    """As many entries as papers, each with authors, title and what the text says."""
    for strategy in strategies(host):
        parts = [part for part in strategy.paper.split(";") if YEAR.search(part)]
        papers = papers_of(strategy)
        assert len(papers) == len(parts), strategy.name
        for part, paper in zip(parts, papers, strict=True):
            assert paper.authors, part
            assert paper.title, part
            assert paper.title not in part  # not made from the text
            assert paper.year == YEAR.search(ARXIV.sub("", part)).group(), part
            assert paper.surname in part
            if number := ARXIV.search(part):
                assert paper.eprint == number.group(1)
            for venue in re.findall(r"\b[A-Z]{2,}\b", ARXIV.sub("", part)):
                assert venue in paper.venue, part


def test_bundled_authors_are_as_many_as_the_text_says(host):
    for strategy in strategies(host):
        for part, paper in zip(
            strategy.paper.split(";"), papers_of(strategy), strict=False
        ):
            many = {" et al.": range(3, 99), " & ": range(2, 3)}
            wanted = [n for word, n in many.items() if word in part] or [range(1, 2)]
            assert len(paper.authors) in wanted[0], part


def test_what_cites_no_paper_has_no_entry(host):
    for name in ("scratch", "scratch_longer", "scratch_few_labels", "split_transfer"):
        assert references(host.strategy(name)) == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_a_bundled_file_is_sound(file, host):
    """All of it is BibTeX, in ASCII, and cited by a strategy of its package."""
    text = file.read_text(encoding="ascii")
    library = bibtexparser.parse_string(text)
    assert library.failed_blocks == []
    assert len(library.entries) == text.count("@")
    used = {
        paper.key
        for strategy in strategies(host)
        if strategy.__module__.partition(".")[0] == file.parent.name
        for paper in papers_of(strategy)
    }
    assert used == {entry.key for entry in library.entries}
    for entry in read(text):
        assert entry.bibtex.count("{") == entry.bibtex.count("}")
        assert "\\" not in entry.bibtex
        assert entry.key.startswith(f"{entry.surname.lower()}{entry.year}")


def all_bundled():
    return [entry for file in FILES for entry in read(file.read_text())]


def test_a_key_means_one_work_in_all_bundled_files():
    entries = set(all_bundled())
    assert len({entry.key for entry in entries}) == len(entries)
    assert len({entry.title for entry in entries}) == len(entries)
    assert len(entries) == len(all_bundled()) - 1  # Hinton et al., in two plugins


STRANGE = "Łuk & Sons_#1 et al. 2024, 50% of $x^2$ ~ {a}} \\input{b} <i> | “c”"


def test_typst_reads_every_entry(tmp_path):
    typst = pytest.importorskip("typst")
    entries = {entry.key: entry.bibtex for entry in all_bundled()}
    entries |= {paper.key: paper.bibtex for paper in cited(STRANGE, ())}
    (tmp_path / "all.bib").write_text("\n".join(entries.values()))
    page = tmp_path / "page.typ"
    cites = " ".join(f"#cite(label({key!r}))".replace("'", '"') for key in entries)
    page.write_text(f'{cites}\n#bibliography("all.bib")\n')
    assert typst.compile(str(page)).startswith(b"%PDF")


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="bibtex is not installed")
def test_bibtex_reads_every_entry_without_a_warning(tmp_path):
    entries = {entry.key: entry.bibtex for entry in all_bundled()}
    entries |= {paper.key: paper.bibtex for paper in cited(STRANGE, ())}
    (tmp_path / "all.bib").write_text("\n".join(entries.values()))
    lines = "\\citation{*}\n\\bibstyle{plain}\n\\bibdata{all}\n"
    (tmp_path / "all.aux").write_text(lines)
    done = subprocess.run(
        ["bibtex", "all"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "arning" in done.stdout) == (0, False), done.stdout
    assert (tmp_path / "all.bbl").read_text().count("\\bibitem") == len(entries)


# --- reading --------------------------------------------------------------------------


def test_an_entry_is_read_as_plain_text_and_written_on_its_own():
    first = read(SHIPPED)[0]
    assert first.authors == ("José Smíth", "Aäron van den Oord", "others")
    assert (first.surname, first.year) == ("Smíth", "2020")
    assert first.title == "Deep KD, 50% & more"
    assert first.venue == "Conference on Vision (CVPR)"
    assert first.eprint == ""  # an abstract names others' papers
    assert str(first) == (
        "José Smíth, Aäron van den Oord et al. Deep KD, 50% & more. "
        "Conference on Vision (CVPR), 2020."
    )
    assert "booktitle = {Conference on Vision (CVPR)}" in first.bibtex
    assert "abstract" not in first.bibtex
    assert "/home/" not in first.bibtex
    assert read(first.bibtex) == (first,)


def test_a_broken_entry_costs_no_other():
    keys = [entry.key for entry in read(SHIPPED)]
    assert keys[-2:] == ["oord2018", "after2022"]
    assert "unexplained" not in read(SHIPPED)[-1].bibtex
    assert read("no entry, {not @one") == ()


# --- finding --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paper", "keys"),
    [
        ("Jones et al. 2021, arXiv:2101.00001", ["jones2021a"]),
        ("Jones et al. 2021, arXiv:2101.00002v2, section 3", ["jones2021b"]),
        ("anything at https://arxiv.org/abs/2101.00002", ["jones2021b"]),
        ("Smith et al. 2020, CVPR", ["smith2020deep"]),
        (
            "Smith 2020, tkd, section 4; van den Oord 2018",
            ["smith2020wide", "oord2018"],
        ),
        ("Smíth & Oord (2020, CVPR)", ["smith2020deep"]),
        ("Oord, A. et al. 2018", ["oord2018"]),
        ("a variant of that of After 2022", ["after2022"]),
        ("Smith et al. 2020", []),  # two of that name and year
        ("Smith et al. 2020, Vision", []),  # and of that word in their venues
        ("Smith et al. 2021, CVPR", []),
        ("Kim 2023", ["kim2023"]),
        ("Kim 2023, arXiv:2301.00002", []),  # the same name, another number
        ("After 2022, arXiv:2101.00004", ["after2022"]),  # which has no number there
    ],
)
def test_the_entry_that_is_meant(paper, keys):
    known = read(SHIPPED)
    found = [entry.key for entry in cited(paper, known) if entry in known]
    assert found == keys
    assert len(cited(paper, known)) == paper.count(";") + 1


@pytest.mark.parametrize(
    ("paper", "authors", "year", "eprint"),
    [
        ("Heo et al. 2019, AAAI", ("Heo", "others"), "2019", ""),
        (
            "Heo et al. 2019, arXiv:1811.03233v2",
            ("Heo", "others"),
            "2019",
            "1811.03233",
        ),
        ("Huang & Wang 2017", ("Huang", "Wang"), "2017", ""),
        ("Lan, Zhu and Gong (2018), NeurIPS", ("Lan", "Zhu", "Gong"), "2018", ""),
        ("Hinton, G., Dean, J. 2015", ("G. Hinton", "J. Dean"), "2015", ""),
        ("our own small variant of it, 2026", (), "2026", ""),
        ("arXiv:2012.03236", (), "", "2012.03236"),
        ("Lee 2013, arXiv:cs/0703110", ("Lee",), "2013", "cs/0703110"),
    ],
)
def test_an_entry_is_made_of_the_text(paper, authors, year, eprint):
    [made] = cited(paper, ())
    assert made.authors == authors
    assert (made.year, made.eprint, made.title) == (year, eprint, paper)
    assert made.bibtex.startswith("@misc{")


@pytest.mark.parametrize(
    "paper",
    ["", ";", "the baseline", "a control for 12345 others", "2020", "Foo, 2012.03236"],
)
def test_a_text_that_names_no_paper(paper):
    assert cited(paper, KNOWN) == ()


def test_made_entries_have_a_key_for_each_text():
    twice = cited(
        "Heo et al. 2019, AAAI; Heo et al. 2019, ICCV; Heo et al. 2019, AAAI", ()
    )
    assert [re.sub("-.*", "", made.key) for made in twice] == ["heo2019", "heo2019"]
    assert twice[0].key != twice[1].key
    assert cited("Heo et al. 2019, AAAI", ())[0].key == twice[0].key


def test_signs_that_latex_obeys_are_escaped():
    [made] = cited(STRANGE, ())
    assert made.bibtex.count("{") == made.bibtex.count("}")
    assert (made.year, made.title[-3:]) == ("2024", "“c”")
    text = re.sub(r"\\[&%#$_]|\{\\text\w+\}", "", made.bibtex.partition("title =")[2])
    assert not re.search(r"[&%#$_~^\\<>|]", text)


# --- the file of a package ------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package with these files and imports its module."""

    def make(name, module, files):
        for path, content in {f"{name}/__init__.py": b"", **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        monkeypatch.syspath_prepend(str(tmp_path))
        import_module(module)
        for loaded in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.setitem(sys.modules, loaded, sys.modules[loaded])

    return make


def entry(key):
    return f"@misc{{{key}, author = {{A}}, title = {{B}}, year = 2020}}".encode()


def test_the_nearest_file_is_read(package):
    name = "kdbench_test_nearest"
    package(
        name,
        f"{name}.inner.deep.one",
        {
            f"{name}/references.bib": entry("outer"),
            f"{name}/inner/__init__.py": b"",
            f"{name}/inner/references.bib": entry("inner"),
            f"{name}/inner/deep/__init__.py": b"",
            f"{name}/inner/deep/one.py": b"",
        },
    )
    assert [e.key for e in shipped(f"{name}.inner.deep.one")] == ["inner"]
    assert [e.key for e in shipped(name)] == ["outer"]


def test_a_file_that_cannot_be_read_gives_nothing(package):
    name = "kdbench_test_latin"
    package(name, name, {f"{name}/references.bib": "@misc{é".encode("latin-1")})
    assert shipped(name) == ()


def test_a_module_without_a_package_has_no_file(package):
    package("kdbench_test_none", "kdbench_test_none", {})
    assert shipped("kdbench_test_none") == ()
    assert shipped("re") == ()
    assert shipped("kdbench_no_such_module") == ()


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, kdbench.catalogue; "
        "print({'bibtexparser', 'pylatexenc'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
