"""report.md: what stands where, and that a Markdown reader sees the texts as meant."""

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from kdbench.cards import Card
from kdbench.report import markdown
from kdbench.report.document import build
from kdbench.report.markdown import escape

NASTY = [
    "<script>alert(1)</script>",
    "a|b",
    "_x_ and *y*",
    "$a_1$",
    "`code`",
    "[link](http://x)",
    "![pic](x.png)",
    "x\\",
    "&amp;",
    "~~gone~~",
    "line\nbreak",
    "1. one",
    "# head",
    "- item",
    "+ item",
]


@pytest.fixture
def results(make):
    """Two settings whose strategies have names that mean something in Markdown."""
    values = {"scratch": [80.0, 81.0, 82.0], "kd": [83.0, 83.0, 85.0]}
    values |= {name: [99.0 - i, 82.0, 85.0] for i, name in enumerate(NASTY)}
    card = Card(
        strategy=NASTY[0],
        code="c0de" * 3,
        family="a|b",
        summary="- It <b>says</b> $x$.",
        references=tuple(f"@article{{{key}, title={{A}}}}" for key in "abc"),
    )
    note = {"note": "# Not a heading", "system": "1. System"}
    return make.results(
        make.teacher(),
        *make.students("a", values, **note),
        *make.students("b", values),
        cards=[card],
    )


@pytest.fixture
def text(results, tmp_path):
    [path] = markdown.render(results, tmp_path)
    return path.read_text(encoding="utf-8")


def rendered(text):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def test_the_order_of_the_report(text):
    headings = re.findall(r"^##? (.*)", text, flags=re.MULTILINE)
    assert headings == [
        "Knowledge distillation benchmark",
        "Findings",
        "Over all settings",
        "digits / a",
        "digits / b",
        "Strategies",
        "Provenance",
    ]
    assert text.index("### Accuracy by setting") < text.index("### Mean ranks")
    assert text.index("### Mean ranks") < text.index("### Wins, ties and losses")
    assert text.index("### Wins, ties and losses") < text.index("### Teachers and")
    assert text.index("### Teachers and") < text.index("## digits / a")


def test_findings_are_a_list(results, text):
    page = rendered(text)
    listed = page[page.index("Findings</h2>") : page.index("Over all settings</h2>")]
    items = [unescape(i) for i in re.findall(r"<li>(.*?)</li>", listed, re.DOTALL)]
    assert items == [" ".join(s.split()) for s in build(results).findings]


def test_a_reader_sees_every_text_as_it_is(results, text):
    page = rendered(text)
    cells = {unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)}
    plain = {re.sub(r"</?strong>", "", cell) for cell in cells}
    for name in NASTY:
        assert " ".join(name.split()) in plain
    tags = set(re.findall(r"</?(\w+)", page))
    known = {"h1", "h2", "h3", "p", "ul", "li", "strong"}
    assert tags <= known | {"table", "thead", "tbody", "tr", "th", "td"}
    assert "<p>1. System." in page
    assert "# Not a heading" in page


def test_no_dollar_starts_a_formula(text):
    assert not re.search(r"(?<!\\)\$", text)
    assert escape("$a_1$") == r"\$a\_1\$"


def test_what_is_not_told_from_the_best_has_a_dagger(make, tmp_path):
    values = {
        "kd": [80.0, 80.5, 81.0],
        "near": [89.0, 91.5, 90.0],
        "best": [90.0, 90.6, 91.0],
    }
    results = make.results(*make.students("a", values), *make.students("b", values))
    text = markdown.render(results, tmp_path)[0].read_text(encoding="utf-8")
    matrix = text[text.index("### Accuracy by setting") : text.index("### Mean ranks")]
    rows = {line.split(" | ")[0].strip("| "): line for line in matrix.splitlines()}
    assert rows["near"].count(" †") == 2
    assert "**90.53 ± 1.25**" in rows["best"]
    assert "†" not in rows["kd"] + rows["best"]
    assert "†: not significantly worse than the best" in matrix


def test_strategies_in_short_with_the_number_of_references(text):
    part = text[text.index("## Strategies") : text.index("## Provenance")]
    assert r"| &lt;script&gt;alert(1)&lt;/script&gt; | a\|b | - It &lt;b&gt;" in part
    assert "They cite 3 publications" in part


def test_plots_are_shown_where_they_were_drawn(make, tmp_path):
    (tmp_path / "plots").mkdir()
    plots = build(make.standard()).plots
    one, *others = (plot for own in plots.values() for plot in own)
    assert others
    (tmp_path / "plots" / f"{one.stem}.png").touch()
    text = markdown.render(make.standard(), tmp_path)[0].read_text(encoding="utf-8")
    found = re.findall(r"^!\[(.*)\]\((.*)\)$", text, flags=re.MULTILINE)
    assert found == [(escape(one.alt), f"plots/{one.stem}.png")]


def test_no_plots_and_no_student(make, tmp_path):
    for results in (make.standard(), make.results(make.teacher())):
        text = markdown.render(results, tmp_path)[0].read_text(encoding="utf-8")
        assert "![" not in text
    assert "No student run yet." in text
    assert "## Findings" not in text
    assert "## Strategies\n" not in text
