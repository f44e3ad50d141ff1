"""Tables of the page: sorting, filters, marks of the best, cards behind the names."""

import pytest
from playwright.sync_api import expect

REFERENCES = ["teacher", "scratch", "kd"]


@pytest.fixture
def accuracy(page):
    """The accuracy table of the larger setting."""
    return page.locator("section.table[id$=-accuracy]:has([data-name*=method_1])")


@pytest.fixture
def errors(page):
    """The small table whose best value is the lowest."""
    return page.locator("section.table[id$=-errors]")


def names(table):
    found = table.locator("tbody tr:visible th").all_text_contents()
    return [name.strip() for name in found]


def heading(table, text):
    return table.locator("thead th").filter(has_text=text).first


def filtered(page, field, words):
    """Write into a filter and wait until it has acted."""
    live = page.locator("#live")
    live.evaluate("live => { live.textContent = '' }")
    page.locator(field).fill(words)
    expect(live).not_to_be_empty()
    return live.text_content()


def test_sorting_by_value_both_ways_and_back(accuracy):
    first, head = names(accuracy), heading(accuracy, "Top-1")
    place, button = head.evaluate("head => head.cellIndex"), head.locator("button")
    orders = []
    for order in ("descending", "ascending"):
        button.press("Enter")
        assert head.get_attribute("aria-sort") == order
        values = accuracy.locator("tbody tr").evaluate_all(
            "(rows, i) => rows.map(row => row.cells[i].dataset.value)", place
        )
        assert values[-1] == ""  # of the strategy that failed, whichever way
        known = [float(value) for value in values[:-1]]
        assert known == sorted(known, reverse=order == "descending")
        assert len(set(known)) > 5
        orders.append(names(accuracy))
    assert orders[0][-1] == orders[1][-1] == "broken"
    button.press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert names(accuracy) == first
    assert first not in orders


def test_sorting_by_words_and_by_one_column_at_a_time(page, accuracy):
    heading(accuracy, "Top-1").locator("button").click()
    heading(accuracy, "Strategy").locator("button").press("Space")
    assert accuracy.locator("th[aria-sort]").count() == 1
    found = [name for name in names(accuracy) if name.startswith("method")]
    assert found == [f"method_{i}" for i in range(9)]
    assert page.locator("#live").text_content() == "Sorted by Strategy, ascending."


def test_sorting_by_numbers_starts_with_the_best(errors, nasty):
    button = heading(errors, "Error").locator("button")
    for order in (
        ["method_2", "method_0", "method_1", nasty],
        ["method_1", "method_0", "method_2", nasty],
        [nasty, "method_0", "method_1", "method_2"],
    ):
        button.click()
        assert names(errors) == order


def test_the_best_and_what_no_test_tells_from_it_are_told_in_words(errors):
    cells = errors.locator("tbody td").all_text_contents()
    assert [cell.strip() for cell in cells] == ["-", "3", "12†", "2 (best)"]
    best = errors.locator("td.best")
    assert int(best.evaluate("cell => getComputedStyle(cell).fontWeight")) >= 600
    notes = errors.locator(".caption").all_text_contents()
    assert "not significantly worse than the best" in notes[0]
    assert notes[1:] == ["Own.", "A note."]


def test_the_filter_of_strategies_acts_on_all_tables(page, accuracy, errors):
    total, count = len(names(accuracy)), page.locator("#strategies-count")
    said = filtered(page, "#strategies-filter", "Method_1, nothing")
    assert count.text_content() == said
    assert names(accuracy) == [*REFERENCES, "method_1"]
    assert names(errors) == ["method_1"]
    assert accuracy.locator(".count").text_content() == f"4 of {total} rows"
    assert errors.locator(".count").text_content() == "1 of 4 rows"
    page.press("#strategies-filter", "Escape")
    assert page.input_value("#strategies-filter") == ""
    assert len(names(accuracy)) == total
    assert count.text_content() == ""


def test_strategies_are_found_by_their_family(page, accuracy):
    filtered(page, "#strategies-filter", "features")
    assert set(names(accuracy)) == {*REFERENCES, "method_1", "method_2"}


def test_the_filter_of_a_table_acts_on_it_alone(page, accuracy, errors):
    total = len(names(accuracy))
    field = f"[data-filters={accuracy.get_attribute('id')}]"
    assert filtered(page, field, "BROKEN") == f"4 of {total} rows"
    assert names(accuracy) == [*REFERENCES, "broken"]
    assert len(names(errors)) == 4
    filtered(page, "#strategies-filter", "method")  # both: no strategy has both
    assert names(accuracy) == REFERENCES
    assert errors.locator("input").count() == 0  # too short to need one


def test_a_name_leads_to_the_card_of_the_code_that_ran(page, accuracy):
    cards = page.locator(".card:has-text('Hinton')")
    assert cards.count() == 2
    link = accuracy.get_by_role("link", name="kd[temperature=2]", exact=True)
    card = page.locator(link.get_attribute("href"))
    assert not card.evaluate("card => card.open")
    link.click()
    expect(card).to_have_attribute("open", "")
    text = card.inner_text()
    for words in ("Hinton et al. 2015", "<i>T</i>: temperature", "> 0", "c0de" * 3):
        assert words in text
    box, bar = card.bounding_box(), page.locator(".bar").bounding_box()
    assert bar["height"] <= box["y"] < 900
    other = page.locator("section.table[id$=-accuracy]:not(:has([data-name*=broken]))")
    target = other.get_by_role("link", name="kd", exact=True).get_attribute("href")
    assert "0th3r" in page.locator(target).text_content()


def test_a_card_leads_to_all_hashes(page):
    target = page.locator(".card a").first.get_attribute("href")
    assert page.locator(target).locator("tbody th").filter(has_text="kd").count()


def test_a_link_shows_a_card_that_the_filter_hides(page, accuracy):
    assert filtered(page, "[data-filters=cards]", "method").endswith("cards")
    link = accuracy.get_by_role("link", name="kd", exact=True)
    card = page.locator(link.get_attribute("href"))
    for _ in range(2):
        card.evaluate("card => { card.hidden = true }")
        link.click()  # the second time the address is the same
        card.wait_for(state="visible")


def test_a_link_from_elsewhere_opens_one_card(visit):
    page = visit("#strategy-kd")
    assert page.locator("details[open]").count() == 1
    assert page.locator("#strategy-kd").evaluate("card => card.open")


def test_cards_are_filtered_and_opened(page):
    total = page.locator(".card").count()
    said = filtered(page, "[data-filters=cards]", "hinton")
    assert page.locator(".card:visible").count() == 2
    assert page.locator("#strategies .count").text_content() == said
    assert said == f"2 of {total} cards"
    toggle = page.locator("#all-cards")
    for pressed, opened in (("true", total), ("false", 0)):
        toggle.click()
        assert toggle.get_attribute("aria-pressed") == pressed
        assert page.locator(".card[open]").count() == opened
