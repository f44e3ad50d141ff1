"""Names of any kind are drawn as they are, and escaped for a page."""

from __future__ import annotations

from kdbench.report.plots.calibration import calibration_plots
from kdbench.report.plots.fidelity import fidelity_plots
from kdbench.report.plots.gains import gain_plots
from kdbench.report.plots.heat import heat_plots
from kdbench.report.plots.ranks import rank_plots
from kdbench.report.plots.style import drawn, inline
from kdbench.report.sections import sections

NASTY = [
    "$x_1$ \\frac{a}{b} 50%",
    "<script>alert('x')</script> & \"y\"",
    "größe_π≈3 {#}",
    "kd[" + "temperature=2,ce_weight=0.1," * 3 + "]",
]


def test_nasty_names_are_drawn_as_they_are(make):
    labels = ["scratch", "kd", *NASTY]
    lists = {
        "calibration_count": [0.0, 100.0],
        "calibration_confidence": [None, 90.0],
        "calibration_accuracy": [None, 80.0],
    }
    records = [
        make.record(
            label,
            seed,
            80.0 + place + 0.1 * seed * (place + 1),
            run={"pair": pair, "strategy": f"s{place}"}
            | ({} if place > 1 else {"strategy": label}),
            measures={"top1": 80.0 + place + 0.1 * seed, "agreement": 70.0 + place},
            lists=lists,
        )
        for place, label in enumerate(labels)
        for seed in range(2)
        for pair in ("$a_b$", "<i>&</i>", "c\\d")
    ]
    found = sections(make.results(*records))
    plots = [
        *heat_plots(found),
        *rank_plots(found),
        *gain_plots(found[0]),
        *fidelity_plots(found[0]),
        *calibration_plots(found[0]),
    ]
    kinds = [plot.kind for plot in plots]
    assert kinds == ["heat", "ranks", "profile", "gains", "fidelity", "calibration"]
    for plot in plots:
        assert drawn(plot).png.startswith(b"\x89PNG")
        page = inline(plot)
        assert "<script" not in page
        assert "<i>" not in page
        if plot.kind != "calibration":  # it names only the best
            assert "$x_1$ \\frac{a}{b} 50%" in page
            assert NASTY[3] in page  # whole in its words, cut beside the axis
