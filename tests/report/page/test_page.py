"""The page as a whole: themes, phones, print, no scripts, no markup, no network."""

import re

import pytest


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_is_automatic_or_chosen_and_kept(visit, system):
    page = visit(color_scheme=system)
    automatic, other = background(page), {"light": "dark", "dark": "light"}[system]
    page.select_option("#theme", other)
    chosen = background(page)
    dark, light = sorted([automatic, chosen], key=brightness)
    assert (automatic == dark) == (system == "dark")
    assert brightness(light) > 200
    assert brightness(dark) < 60
    page.reload()
    assert background(page) == chosen
    assert page.input_value("#theme") == other
    page.select_option("#theme", "")
    assert background(page) == automatic


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_page_scrolls_downwards_only(visit, width):
    page = visit(viewport={"width": width, "height": 700})
    page.locator("#all-cards").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    table = page.locator("section.table[id$=-accuracy]").first
    box = table.locator(".box")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.evaluate("box => { box.scrollLeft = 100 }")  # the names stay
    name, edge = table.locator("tbody th").last, box.bounding_box()
    assert name.bounding_box()["x"] == pytest.approx(edge["x"], abs=1)


def test_headings_stay_in_sight_where_a_table_fits(page):
    table = page.locator("section.table[id$=-accuracy]:has([data-name*=broken])")
    table.locator("tbody tr").nth(5).evaluate("row => row.scrollIntoView()")
    bar, head = page.locator(".bar").bounding_box(), table.locator("thead th").first
    assert table.locator("tbody th").first.bounding_box()["y"] < 0
    assert head.bounding_box()["y"] == pytest.approx(bar["y"] + bar["height"], abs=2)


def test_markup_in_names_stays_text(page, nasty):
    assert page.title() == "Knowledge distillation benchmark"
    assert page.locator("img, b, i").count() == 0
    assert nasty in page.locator("main").text_content()
    assert page.locator(".card .name").filter(has_text=nasty).count() == 1
    plot = page.locator("figure[id$=-own]")
    assert plot.locator("[data-tip]").nth(2).get_attribute("data-tip") == nasty
    label = plot.locator("svg").get_attribute("aria-label")
    assert label.startswith(f"alt {nasty}")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[\w.-]+", found) for found in ids)


def test_no_other_script_runs_and_nothing_is_fetched(browser, address):
    """The policy is the second wall, behind escaping."""
    page = browser.new_page()
    page.goto(address)
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend',"
        " '<button id=bad onclick=\"document.title=1\">x</button>')"
    )
    page.locator("#bad").click()
    title = page.title()
    refused = page.evaluate(
        """() => new Promise(tell => {
          const found = [];
          document.addEventListener("securitypolicyviolation", event => {
            found.push(event.effectiveDirective);
            if (found.length === 2) tell(found);
          });
          fetch("http://127.0.0.1:9/").catch(() => {});
          new Image().src = "http://127.0.0.1:9/x.png";
          setTimeout(() => tell(found), 3000);
        })"""
    )
    page.close()
    assert title == "Knowledge distillation benchmark"
    assert sorted(refused) == ["connect-src", "img-src"]


def test_print_shows_the_cards_and_no_controls(visit):
    page = visit(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    formula = page.locator("#strategy-kd .formula")
    assert formula.is_visible()
    assert formula.bounding_box()["height"] > 20
    for control in (".bar", "nav", "#all-cards", "#tip"):
        assert page.locator(control).is_hidden()
    assert page.locator("input:visible, select:visible").count() == 0
    assert background(page) == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_everything_is_there_without_scripts(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("tbody th").filter(has_text="method_3").first.is_visible()
    assert page.locator("#strategy-kd .formula").is_visible()
    assert page.locator("svg.plot:visible").count() >= 2
    assert page.locator("input:visible, select:visible").count() == 0


def test_the_keyboard_comes_past_the_contents(page):
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("link => link === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate(
        "document.querySelector('main').contains(document.activeElement)"
    )


def test_landmarks_and_contents(page):
    assert page.locator("h1").count() == 1
    for landmark in ("main", "nav", "header", "footer"):
        assert page.locator(f"body > {landmark}").count() == 1
    links = page.locator("nav a")
    targets = [link.get_attribute("href") for link in links.all()]
    assert links.all_text_contents()[0] == "Findings"
    assert targets == [
        f"#{found}"
        for found in page.locator("main > section").evaluate_all(
            "sections => sections.map(section => section.id)"
        )
    ]


CONTRAST = """element => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const clear = e => /, 0\\)$/.test(getComputedStyle(e).backgroundColor);
  let ground = element;
  while (ground.parentElement && clear(ground)) ground = ground.parentElement;
  const a = light(getComputedStyle(element).color);
  const b = light(getComputedStyle(ground).backgroundColor);
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""
"""WCAG 2.2: of an element's text to its own ground or the page's."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(visit, scheme):
    page = visit(color_scheme=scheme)
    page.evaluate("document.querySelector('#tip').hidden = false")
    for selector in (
        "main p",
        ".byline",
        ".caption",
        "figcaption",
        "nav a",
        "td.best",
        "tr.reference td",
        "tr.missing td",
        "thead small",
        ".near",
        ".card .family",
        ".bar label",
        "#tip",
    ):
        found = page.locator(selector).first.evaluate(CONTRAST)
        assert found >= 4.5, f"{selector}: {found:.1f}"


def test_a_plot_on_a_phone_shows_that_there_is_more_to_the_right(visit):
    page = visit(viewport={"width": 390, "height": 800})
    box = page.locator(".box:has(> svg.plot)").first
    fade = "b => getComputedStyle(b).maskImage"
    assert "linear-gradient(to left" in box.evaluate(fade)
    hidden, faded = box.evaluate(
        "b => [b.scrollWidth - b.clientWidth,"
        " parseFloat(getComputedStyle(b.firstElementChild).borderRightWidth)]"
    )
    assert hidden > faded > 30  # scrolled to the end, the edge covers an empty margin
    page.set_viewport_size({"width": 1280, "height": 800})
    assert box.evaluate(fade) == "none"
