"""What is written of strategies -> strategies, configured; presets by the pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdbench.api import Pair, Strategy, unknown
from kdbench.plugins import Host
from kdbench.selections import Selection, label_of, parse_selection


@dataclass(frozen=True)
class Choice:
    """A strategy that was asked for, configured; `on` a pair where it has presets.

    `compressions` are done to its student; `label` is that of the strategy.
    """

    selection: Selection
    strategy: Strategy
    label: str
    compressions: tuple[str, ...] = ()

    @property
    def preset(self) -> str:
        """The presets asked for, such as "dkd@authors"; empty for none."""
        asked = self.selection.presets.items()
        return "+".join(f"{name}@{preset}" for name, preset in asked)

    def on(self, pair: Pair) -> tuple[Strategy, str | None]:
        """The strategy with its presets for this pair, or why it has none."""
        kind = type(self.strategy)
        several = "+" in kind.name
        preset: dict[str, Any] = {}
        for part in getattr(kind, "kinds", (kind,)):
            wanted = self.selection.presets.get(part.name)
            if wanted is None:
                continue
            own = part.presets[wanted].get(pair.name)
            if own is None:
                return self.strategy, f"{part.name}@{wanted} has no settings for it"
            start = f"{part.name}." if several else ""
            preset |= {f"{start}{key}": value for key, value in own.items()}
        if not preset:
            return self.strategy, None
        return kind.configured(preset | dict(self.selection.params)), None


def choose(
    texts: Sequence[str], host: Host, where: str, compress: Sequence[str] = ()
) -> list[Choice]:
    """What these texts ask for, and `compress`, done to each that is not compressed.

    Whatever is compressed is there as it was before, too.
    """
    chosen: dict[str, Choice] = {}
    for text in texts:
        for selection in parse_selection(text):
            strategy = configure(selection, host, where)
            kind = type(strategy)
            values, defaults = strategy.values(), kind.parameters()
            label = label_of(selection.name, values, defaults, selection.presets)
            after = selection.compressions
            wanted = [after] if after else [tuple(one.split("/")) for one in compress]
            chains = [
                chain[:done] for chain in wanted for done in range(1, len(chain) + 1)
            ]
            for chain in [(), *chains]:
                for name in chain:
                    host.get("compressions", name, where)
                whole = "/".join((label, *chain))
                chosen[whole] = Choice(selection, strategy, label, chain)
    return list(chosen.values())


def configure(selection: Selection, host: Host, where: str = "") -> Strategy:
    """The strategy of this selection; UserError for a bad name, preset or value."""
    kind = host.strategy(selection.name, where)
    for part in getattr(kind, "kinds", (kind,)):
        wanted = selection.presets.get(part.name)
        if wanted is not None and wanted not in part.presets:
            raise unknown("preset", wanted, part.presets, f"strategy {part.name!r}")
    return kind.configured(selection.params)
