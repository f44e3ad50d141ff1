"""One page for all, of made-up results, and a browser to open it with."""

import shutil
from dataclasses import replace

import pytest
from playwright.sync_api import sync_playwright

from kdbench.cards import Card, Hyperparameter
from kdbench.report import html
from kdbench.report.document import build
from kdbench.report.plots.style import Plot, tip
from kdbench.report.tables import Cell, Column, Row, Table, word

NASTY = '"><img src=x onerror="document.title=1">&amp;_<b>'
MEANS = {f"method_{i}": 84.0 + i / 4 for i in range(9)}


@pytest.fixture(scope="session")
def nasty():
    """A strategy's name, and words of a mark, with markup in them."""
    return NASTY


def marks():
    """One thin line, one dot and one with an awkward name, each with words."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    for place, words in enumerate(("line", "dot: 7", NASTY)):
        mark = "-" if words == "line" else "o"
        xs = [0, 3] if words == "line" else [place]
        (line,) = axes.plot(xs, [place] * len(xs), mark, linewidth=0.5)
        tip(line, words)
    return figure


def errors():
    """A table whose best value is the lowest."""
    columns = (
        Column("strategy", "Strategy", numeric=False),
        Column("error", "Error <i>", "ms", better="lower"),
    )
    cells = [Cell(3.0, "3"), Cell(12.0, "12", near=True), Cell(2.0, "2", best=True)]
    rows = [Row((word(f"method_{i}"), cell)) for i, cell in enumerate(cells)]
    missing = Row((word(NASTY), Cell(None, "-")), "missing")
    return Table("errors", "Errors", "Own.", columns, (missing, *rows), ("A note.",))


def card(code):
    return Card(
        strategy="kd",
        code=code,
        family="logits",
        summary="Match the softened classes. <b>",
        paper="Hinton et al. 2015",
        formula="T^2 * KL(p || q)\n  <i>T</i>: temperature",
        parameters=(Hyperparameter(name="temperature", default="4.0", note="> 0"),),
        references=("@misc{hinton, url = {https://arxiv.org/abs/1503.02531}}",),
    )


@pytest.fixture(scope="session")
def document(make):
    """Two settings with other code, a failed strategy, one with markup in its name."""
    records = list(make.standard().records)
    for label, mean in MEANS.items():
        family = "features" if label in ("method_1", "method_2") else "logits"
        records += make.strategy(label, [mean, mean + 1, mean + 2], family=family)
    records += make.strategy("broken", [None, None])
    records += make.strategy(NASTY, [84.0, 84.5, 85.0])
    records += make.strategy("kd[temperature=2]", [82.0, 82.5, 83.0])
    other = {"pair": "big-<i>tiny</i>", "code": {"strategy": "0th3r"}}
    records += [make.record(s, 0, 70.0, run=other) for s in ("scratch", "kd")]
    cards = [card("c0de" * 3), card("0th3r")]
    built = build(make.results(*records, cards=cards))
    part = replace(built.parts[0], tables=(*built.parts[0].tables, errors()))
    found = replace(built, parts=(part, *built.parts[1:]), findings=("A <b> finding.",))
    own = Plot("own", "own", "Own <i>plot</i>", f"alt {NASTY}", "caption <i>", marks)
    found.plots[part.section.slug].append(own)
    return found


@pytest.fixture(scope="session")
def address(make, document, tmp_path_factory):
    """The page as a file:// address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "build", lambda _: document)
        (path,) = html.render(make.results(), tmp_path_factory.mktemp("page"))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine to open the page with")
    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page in a window of its own; errors and requests fail the test."""
    complaints, contexts = [], []

    def requested(request):
        if request.url.partition("#")[0] != address:
            complaints.append(f"request of {request.url}")

    def open_page(fragment="", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", requested)
        page.goto(address + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(visit):
    """The page on a desk."""
    return visit(viewport={"width": 1280, "height": 900})
