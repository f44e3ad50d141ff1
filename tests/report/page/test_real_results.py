"""The page of a real run: the commands of the README, opened as a reader would."""

import subprocess
import sys

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

CHOSEN = "--no-speed --seeds 2 --epochs 3 -s scratch,kd,dkd,dist,fitnet,pkt,rkd,sp,dml"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "kdbench.cli", "run", "digits", *CHOSEN.split()]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return (folder / "results" / "digits" / "report" / "report.html").as_uri()


def test_sort_filter_theme_and_tips(page):
    """The fixture fails on any message of the console and any request."""
    assert "2 settings and 2 seeds" in page.locator("#findings").text_content()
    table = page.locator("section.table[id$=-accuracy]").first
    table.scroll_into_view_if_needed()
    head = table.locator("thead th").filter(has_text="Top-1").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    place = head.evaluate("head => head.cellIndex")
    values = table.locator("tbody tr").evaluate_all(
        "(rows, i) => rows.map(row => Number(row.cells[i].dataset.value))", place
    )
    assert len(values) == 10
    assert values == sorted(values, reverse=True)
    live = page.locator("#live")
    live.evaluate("live => { live.textContent = '' }")
    page.locator("#strategies-filter").fill("dkd")
    expect(live).not_to_be_empty()
    shown = table.locator("tbody tr:visible th")
    names = {name.strip() for name in shown.all_text_contents()}
    assert {"dkd", "kd", "scratch", "teacher"} <= names
    assert not names & {"dist", "fitnet", "rkd"}
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.select_option("#theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    mark = page.locator("figure[id$=-accuracy] [data-tip]").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "n = " in page.locator("#tip").inner_text()
