"""Numbers of a column in print: what pads them, and where it must not."""

import pytest

from kdbench.report.typesetting import prose
from kdbench.report.typesetting.numbers import aligned


def shown(spans):
    return "".join(f"({s.text})" if s.kind == "hidden" else s.text for s in spans)


def test_numbers_align_at_their_points():
    found = [shown(s) for s in aligned(["95.0 ± 6.2", "7.25 ± 11.1", "99.3", "-"])]
    gap = prose.SPACE
    assert found == [
        f"95.0(0){gap}±{gap}(0)6.2",
        f"7.25{gap}±{gap}11.1",
        f"99.3(0{gap}±{gap}00.0)",
        "\u2013",
    ]
    assert [shown(s) for s in aligned(["-1.5", "0.31 n.s.", "1.43x"])] == [
        f"{prose.MINUS}1.5(0{gap}n.s.)",
        f"0.31{gap}n.s.",
        f"1.43{prose.TIMES}(n.s.)",
    ]
    assert [shown(s) for s in aligned(["88.7 (4.0)", "8.7 (13.3)"])] == [
        f"88.7(0){gap}(4.0)",
        f"8.7{gap}(13.3)",
    ]


@pytest.mark.parametrize(
    ("texts", "printed"),
    [
        (["568 k", "1.23 M", "28.8 k"], ["568~k(.00)", "1.23~M", "28.8~k(0)"]),
        (
            ["+1.0 (-0.3)", "+1.0 (12.5)"],
            ["+1.0(0)~(\u22120.3)", "+1.0(\u2212)~(12.5)"],
        ),
        (["3.5e-07", "0.004"], ["3.5e\u221207", "0.004(00)"]),
        (["(4.0) x", "(4)"], ["(4.0) x", "(4)"]),
        (["8.7 (13.35)", "8.7 (1.2)"], ["8.7~(13.35)", "8.7(0)~(1.2)(0)"]),
    ],
)
def test_padding_parts_no_number_from_its_sign_or_unit(texts, printed):
    found = [shown(s).replace(prose.SPACE, "~") for s in aligned(texts)]
    assert found == printed


def test_a_range_is_kept_whole():
    texts = ["0.107 - 0.110", "0.00673 - 0.00677", "-2.7 to -0.3", "-12.7 to -10.35"]
    found = [shown(s).replace(prose.SPACE, " ") for s in aligned(texts)]
    assert found == [
        "0.107 \u2013 0.110",
        "0.00673 \u2013 0.00677",
        "\u22122.7 to \u22120.3",
        "\u221212.7 to \u221210.35",
    ]


@pytest.mark.parametrize("text", ["skipped (3 of 3)", "in 1 of 3 seeds", "kd", ""])
def test_words_among_numbers_stay_words(text):
    assert shown(aligned(["12.5", text])[1]) == prose.name(text)
