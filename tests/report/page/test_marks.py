"""Plots of the page: the words of a mark by pointer, finger and keyboard."""

import pytest
from playwright.sync_api import expect

DRAWN = "() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"


@pytest.fixture
def figure():
    return "figure[id$=-own]"


def middle(page, figure, number):
    """Where a mark is on the screen, when it has been scrolled there and drawn."""
    mark = page.locator(f"{figure} [data-tip]").nth(number)
    mark.scroll_into_view_if_needed()
    page.evaluate(DRAWN)
    box = mark.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_words_of_a_mark_beside_the_pointer(page, figure, nasty):
    x, y = middle(page, figure, 2)
    page.mouse.move(x, y)
    tip = page.locator("#tip")
    expect(tip).to_have_text(nasty)
    assert page.locator(f"{figure} .on").count() == 1
    box = tip.bounding_box()
    assert abs(box["y"] + box["height"] / 2 - y) < 60
    assert box["x"] + box["width"] <= 1280
    x, y = middle(page, figure, 0)
    page.mouse.move(x, y + 4)  # a line of half a point is hard to hit
    expect(tip).to_have_text("line")
    page.mouse.move(x, y + 30)
    expect(tip).to_be_hidden()
    assert page.locator(f"{figure} .on").count() == 0


def test_the_words_of_a_mark_under_a_finger(visit, figure):
    page = visit(viewport={"width": 375, "height": 800}, has_touch=True)
    x, y = middle(page, figure, 1)
    page.touchscreen.tap(x + 9, y)
    tip = page.locator("#tip")
    assert tip.inner_text() == "dot: 7"
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375


def test_the_words_of_marks_by_keyboard(page, figure, nasty):
    page.locator(f"{figure} svg").focus()
    page.keyboard.press("Home")
    tip, live = page.locator("#tip"), page.locator("#live")
    found = []
    for key in ("ArrowRight", "ArrowRight", "End"):
        page.keyboard.press(key)
        found.append(tip.inner_text())
        assert live.text_content() == found[-1]
    assert found == ["line", nasty, nasty]  # by their horizontal middles
    page.keyboard.press("ArrowDown")  # to the next one below
    assert tip.inner_text() == "dot: 7"
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_a_plot_is_reached_by_the_tab_key_and_left_again(page, figure):
    page.locator(figure).evaluate(
        "f => { const a = document.createElement('a'); a.href = '#'; f.before(a);"
        " a.focus() }"
    )
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('svg.plot[tabindex=\"0\"]')")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.matches('svg.plot')")
    assert page.locator("#tip").is_hidden()
