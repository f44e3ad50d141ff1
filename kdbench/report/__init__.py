"""Tables, plots and pages from records; nothing here runs or imports torch.

The way of the data: `sections` sorts results into settings, `analysis` compares the
strategies of one, `accuracy`, `cost` and `provenance` build tables (`tables`) of them,
`words` the sentences, `document` puts it together, and the renderers lay it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from kdbench.api import Renderer, UserError, hookimpl
from kdbench.store import Results


def _later(module: str) -> Callable[[Results, Path], Sequence[Path]]:
    """The module's `render`, imported when it is first called."""

    def render(results: Results, folder: Path) -> Sequence[Path]:
        found: Sequence[Path] = import_module(f"{__name__}.{module}").render(
            results, folder
        )
        return found

    return render


BUILTIN: list[Renderer] = [
    Renderer(
        name="plots",
        summary="every plot as SVG, PDF and PNG",
        render=_later("plot_files"),
    ),
    Renderer(
        name="csv",
        summary="one CSV file for each table, unrounded",
        render=_later("csv_files"),
    ),
    Renderer(
        name="markdown",
        summary="report.md with every table",
        render=_later("markdown"),
    ),
    Renderer(
        name="html",
        summary="report.html: one self-contained page",
        render=_later("html"),
    ),
    Renderer(
        name="latex",
        summary="report.tex and report.bib, with the plots as PDF",
        render=_later("latex"),
    ),
    Renderer(
        name="pdf",
        summary="report.pdf: the paper-style report, finished",
        render=_later("paper"),
    ),
]


@hookimpl
def kdbench_renderers() -> list[Renderer]:
    """The built-in report formats."""
    return BUILTIN


def write(results: Results, folder: Path, renderers: Sequence[Renderer]) -> list[Path]:
    """Let every renderer write into `folder`; return the files written.

    One that raises does not stop the others: a UserError that names it follows when
    they are done. Raises UserError at once where the results cannot stand together.
    """
    from kdbench.report.sections import check_protocol

    check_protocol(results)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    failures = []
    # what shows plots finds their files there
    for renderer in sorted(renderers, key=lambda one: one.name != "plots"):
        try:
            written += renderer.render(results, folder)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is
            failures.append(
                f"renderer {renderer.name!r}: {type(error).__name__}: {error}"
            )
    if failures:
        raise UserError(
            f"{'; '.join(failures)}. The other formats are in {folder}; choose formats "
            "without it, or mend its plugin"
        )
    return written
