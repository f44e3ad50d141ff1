"""What a strategy is, in words, kept beside the records of its runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdbench.records import Strict


class Hyperparameter(Strict):
    """One of a strategy: its default as text, and its unit, range and source."""

    name: str
    default: str
    note: str = ""


class Card(Strict):
    """What a strategy is, in words, as it was when runs were made with it.

    `code` is the hash of its source, as in the runs. `formula` is plain text of several
    lines. `references` are BibTeX entries.
    """

    format: Literal[1] = 1
    strategy: str
    code: str
    family: str
    summary: str
    paper: str = ""
    formula: str = ""
    tasks: tuple[str, ...] = ()
    reads: str = ""
    costs: str = ""
    plugin: dict[str, str] = Field(default_factory=dict)
    parameters: tuple[Hyperparameter, ...] = ()
    references: tuple[str, ...] = ()
