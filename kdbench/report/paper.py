"""report.pdf: the paper-style report, set by Typst, which comes as a wheel.

The same content gives the same bytes: fonts are those that Typst brings, and the date
is that of the last record.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdbench.api import UserError
from kdbench.report.typesetting.blocks import Block
from kdbench.report.typesetting.manuscript import Manuscript, day, manuscript
from kdbench.report.typesetting.references import bibtex
from kdbench.store import Results

NARROW = 0.88
"""How wide the letters of Libertinus are beside those of Computer Modern, at most."""
TEMPLATE = Path(__file__).with_name("templates") / "report.typ"


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/report.pdf. Raises UserError where typst is not installed."""
    try:
        import typst
    except ImportError:
        raise UserError(
            "the PDF needs typst, which is not installed: pip install typst"
        ) from None
    text = manuscript(results, NARROW)
    path = folder / "report.pdf"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _lay_out(text, root)
        path.write_bytes(
            typst.compile(
                str(root / "report.typ"),
                root=str(root),
                format="pdf",
                ignore_system_fonts=True,
            )
        )
    return [path]


def _lay_out(text: Manuscript, root: Path) -> None:
    """Write what Typst reads: template, text, works cited and figures."""
    (root / "plots").mkdir()
    for picture in text.pictures:
        (root / "plots" / f"{picture.stem}.pdf").write_bytes(picture.pdf)
    content = {
        "title": text.title,
        "day": day(text.date),
        "date": text.date
        and {"year": text.date.year, "month": text.date.month, "day": text.date.day},
        "abstract": text.abstract,
        "body": [_plain(block) for block in text.body],
        "appendix": [_plain(block) for block in text.appendix],
    }
    (root / "manuscript.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "report.bib").write_text(bibtex(text.entries, _escape), encoding="utf-8")
    (root / "report.typ").write_bytes(TEMPLATE.read_bytes())


def _plain(block: Block) -> dict[str, Any]:
    found = {k: v for k, v in asdict(block).items() if k != "pdf"}
    return {"kind": block.kind, **found}


def _escape(text: str) -> str:
    """Text of an entry. Of all signs Typst takes these two for LaTeX's."""
    return text.replace("\\", " ").replace("$", r"\$")
