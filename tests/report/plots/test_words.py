"""Words of marks: what they say of a strategy, whatever its name."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from kdbench.records import RMSE
from kdbench.report.analysis import standings
from kdbench.report.plots.accuracy import accuracy_plots
from kdbench.report.plots.curves import curve_plots
from kdbench.report.plots.labels import told
from kdbench.report.plots.style import drawn, inline, save
from kdbench.report.plots.tradeoff import tradeoff_plots
from kdbench.report.sections import sections

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from marking import only, priced

LONG = "kd[temperature=4,alpha=0.9]" + "x" * 60
ODD = ("a$\\alpha$_b%{}#^~", "<script>alert('&')</script>", "Größe 蒸留", LONG)


def test_words_of_a_mark_by_hand(make):
    section = only(sections(make.standard()))
    found = {s.label: told(section, s) for s in standings(section)}
    # 84, 85.5, 86 against 83, 83, 85: 1.5 with sd 0.866, t = 3.0, two degrees
    assert found["better"] == (
        "better: 85.17 ± 2.59 %, n = 3; +1.50 ± 2.15 points over kd "
        "(p = 0.10, n.s., Holm-adjusted)"
    )
    assert found["kd"].startswith("kd: 83.67 ± 2.87 %, n = 3; +2.67 ± ")
    assert "points over scratch (p = 0.015, Holm-adjusted)" in found["kd"]
    assert found["scratch"] == "scratch: 81.00 ± 2.48 %, n = 3"


def test_words_of_one_seed_claim_no_interval_and_no_test(make):
    records = [*make.strategy("scratch", [80.0]), *make.strategy("kd", [82.0])]
    section = only(sections(make.results(*records)))
    kd = standings(section)[1]
    assert told(section, kd) == "kd: 82.00 %, n = 1; +2.00 points over scratch"


def test_an_error_that_falls_is_a_gain(make):
    records = [
        make.record(label, 0, 1.0, headline=RMSE, measures={"rmse": value})
        for label, value in (("scratch", 60.0), ("kd", 55.0))
    ]
    section = only(sections(make.results(*records)))
    assert told(section, standings(section)[1]) == (
        "kd: 55.00, n = 1; +5.00 over scratch"
    )


def test_data_tip_holds_drawn_marks_and_every_odd_word(make):
    records = [*make.strategy("scratch", [80.0, 81.0])]
    for label in (*ODD, "two\nlines\x00"):
        records += make.strategy(label, [82.0, 84.0], curves={"top1": [1.0, 2.0]})
    section = only(sections(make.results(make.teacher(), *records)))
    for plot in (*accuracy_plots(section), *curve_plots(section)):
        svg = inline(plot).replace("<svg", '<svg xmlns:xlink="x"', 1)
        found = {}
        for element in ET.fromstring(svg).iter():  # noqa: S314  # our own text
            if words := element.get("data-tip"):
                shapes = [*element.iter("path"), *element.iter("use")]
                found[words.partition(": ")[0]] = len(shapes)
        assert {*ODD, "two lines "} <= found.keys()
        assert min(found.values()) > 0


def test_three_formats_of_odd_names_without_a_warning(make, tmp_path, recwarn):
    prices = {label: ([80.0 + i], [10.0 + i]) for i, label in enumerate(ODD)}
    prices["scratch"] = ([79.0], [9.0])
    plots = tradeoff_plots(sections(make.results(*priced(make, prices))))
    found = drawn(only(plots))
    assert found.pdf.startswith(b"%PDF")
    assert found.png.startswith(b"\x89PNG")
    paths = save(only(plots), tmp_path)
    assert [path.suffix for path in paths] == [".svg", ".pdf", ".png"]
    ET.parse(paths[0])  # noqa: S314  # our own text
    assert not recwarn.list
