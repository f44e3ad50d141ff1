"""Text made fit for printing: signs, places where a long name may break."""

from __future__ import annotations

import re
import unicodedata

BREAK = "\u200b"
"""Zero width: a line may break here."""
SPACE = "\u00a0"
"""A line may not break here."""
MINUS = "\u2212"
DASH = "\u2013"
TIMES = "\u00d7"
QUOTES = "\u2018\\1\u2019"
"""What stands in single quotes, as a replacement."""

LONG = 18
"""Words with more characters than this may break behind punctuation."""
RUN = 12
"""So many characters without punctuation, and a long word may break anyway."""


def clean(text: str) -> str:
    """One line of visible characters: no controls, no marks that turn text around."""
    composed = unicodedata.normalize("NFC", text)
    kept = (
        " " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character
        for character in composed
        if unicodedata.category(character) not in ("Cf", "Cs", "Co", "Cn")
    )
    return " ".join("".join(kept).split())


def name(text: str) -> str:
    """A label, as it is but for places to break."""
    return " ".join(_breakable(word) for word in clean(text).split(" "))


def sentence(text: str) -> str:
    """Running text: true minus signs and quotes, values kept together.

    >>> sentence("-1.0 ± 0.2 % of 'that'").replace(SPACE, "~")
    '\u22121.0~±~0.2~% of ‘that’'
    """
    text = name(text)
    text = text.replace(" ± ", f"{SPACE}±{SPACE}")
    text = re.sub(r"(?<=\d) %", f"{SPACE}%", text)
    text = re.sub(r"(?:(?<=^)|(?<=[ (]))-(?=\d)", MINUS, text)
    return re.sub(r"(?<!\w)'([^']+)'(?!\w)", QUOTES, text)


def _breakable(word: str) -> str:
    if len(word) <= LONG:
        return word
    parts = re.split(r"(?<=[_\[\]{}(),=/:+@&|-])(?=\w)|(?<=\.)(?=[^\W\d])", word)
    cut = [part[i : i + RUN] for part in parts for i in range(0, len(part), RUN)]
    return BREAK.join(cut)
