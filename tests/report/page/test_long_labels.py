"""A page with a long label in its plots."""

import pytest

from kdbench.report import html


@pytest.fixture(scope="module")
def address(make, tmp_path_factory):
    records = list(make.standard().records)
    records += make.strategy("reviewkd[warmup_epochs=1]", [84.0, 84.5, 85.0])
    (path,) = html.render(make.results(*records), tmp_path_factory.mktemp("page"))
    return path.as_uri()


def test_no_label_of_a_plot_is_cut_off(page):
    """Browsers may set text wider than it was when the plot was laid out."""
    page.add_style_tag(content="svg.plot text { letter-spacing: .4px }")
    room = page.evaluate(
        """() => [...document.querySelectorAll(".box > svg.plot text")].map(text => [
            text.textContent,
            text.getBoundingClientRect().left
                - text.closest(".box").getBoundingClientRect().left,
            getComputedStyle(text.closest("svg")).overflow,
        ])"""
    )
    assert "reviewkd[warmup_epochs=1]" in {words for words, _, _ in room}
    assert [w for w, left, shown in room if left < 0 or shown != "visible"] == []
