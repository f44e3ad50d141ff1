"""The plots: of one setting, and over several.

Every file here draws one or two kinds, in the style of `style`; `orientation` and
`labels` are what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from kdbench.report.plots.accuracy import accuracy_plots
from kdbench.report.plots.calibration import calibration_plots
from kdbench.report.plots.curves import curve_plots
from kdbench.report.plots.fidelity import fidelity_plots
from kdbench.report.plots.gains import gain_plots
from kdbench.report.plots.heat import heat_plots
from kdbench.report.plots.ranks import rank_plots
from kdbench.report.plots.style import Plot
from kdbench.report.plots.tradeoff import tradeoff_plots
from kdbench.report.sections import Section

OF_A_SECTION = (
    accuracy_plots,
    gain_plots,
    curve_plots,
    fidelity_plots,
    calibration_plots,
)
OVER_SECTIONS = (tradeoff_plots, heat_plots, rank_plots)


def section_plots(section: Section) -> list[Plot]:
    """The plots of one setting, in the order of `OF_A_SECTION`."""
    return list(chain.from_iterable(plots(section) for plots in OF_A_SECTION))


def overall_plots(sections: Sequence[Section]) -> list[Plot]:
    """Accuracy against what it costs; settings and strategies; ranks."""
    return list(chain.from_iterable(plots(sections) for plots in OVER_SECTIONS))
