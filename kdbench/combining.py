"""Sums of strategies by name, `kd+fitnet`: hybrid distillation without code in them.

Every part brings its own terms, label loss included, its adapters and its taps; a
part's `weight` scales all its terms. Parts see their own share of the batch only.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from kdbench.api import (
    Batch,
    ExtraView,
    Outputs,
    Phase,
    Strategy,
    Tapped,
    UserError,
    unknown,
)
from kdbench.ramps import Ramp, parse_ramp

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHT = "weight"
"""A part's factor on all its terms, beside its own hyper-parameters."""


class Combination(Strategy):
    """A sum of strategies; made by `combine`."""

    family = "combination"
    kinds: tuple[type[Strategy], ...] = ()
    parts: tuple[Strategy, ...]
    weights: tuple[float | Ramp, ...]

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        return {
            f"{kind.name}.{key}": default
            for kind in cls.kinds
            for key, default in (kind.parameters() | {WEIGHT: 1.0}).items()
        }

    @classmethod
    def configured(cls, values: Mapping[str, Any]) -> Self:
        own: dict[str, dict[str, Any]] = {kind.name: {} for kind in cls.kinds}
        for key, value in values.items():
            if key not in cls.parameters():
                what = f"hyper-parameter of {cls.name!r}:"
                raise unknown(what, key, cls.parameters())
            name, _, field = key.partition(".")
            own[name][field] = value
        made = cls()
        given = [own[kind.name].pop(WEIGHT, 1.0) for kind in cls.kinds]
        made.weights = tuple(
            _weight(f"{cls.name}: {kind.name}.weight", text)
            for kind, text in zip(cls.kinds, given, strict=True)
        )
        made.parts = tuple(kind.configured(own[kind.name]) for kind in cls.kinds)
        made.take_over()
        return made

    def take_over(self) -> None:
        """Ask for what the parts ask for; UserError where they cannot be summed."""
        parts = self.parts
        self.taps = tuple(dict.fromkeys(tap for p in parts for tap in p.taps))
        self.views = tuple(dict.fromkeys(view for p in parts for view in p.views))
        both = ("student_views", "teacher_views")
        self.student_views, self.teacher_views = (
            tuple(dict.fromkeys(view for p in parts for view in _answered(p, side)))
            for side in both
        )
        self.students = max(p.students for p in parts)
        self.teachers = max(p.teachers for p in parts)
        self.assistants = max(p.assistants for p in parts)
        self.needs_probabilities = any(
            p.teachers and p.needs_probabilities for p in parts
        )
        self.tasks = tuple(
            t for t in parts[0].tasks if all(t in p.tasks for p in parts)
        )
        if not self.tasks:
            raise UserError(f"{self.name}: no task is defined for all the parts")
        self.label_fraction = min(p.label_fraction for p in parts)
        if len({p.label_fraction for p in parts}) > 1:
            raise UserError(
                f"{self.name}: the parts use different shares of the labels"
            )
        for part in parts:
            if part.replaces_classifier:
                raise UserError(
                    f"{self.name}: {part.name} takes the student's own classifier "
                    "away, and the other parts learn by its logits"
                )
        one_each = {
            "has phases of its own": [p for p in parts if _phases(p) != (Phase(),)],
            "deploys a network of its own": [
                p for p in parts if type(p).deployed is not Strategy.deployed
            ],
        }
        for what, those in one_each.items():
            if len(those) > 1:
                names = " and ".join(part.name for part in those)
                raise UserError(f"{self.name}: {names} cannot be summed: each {what}")
        for part in one_each["has phases of its own"]:
            others = [p for p in parts if p is not part]
            several = [p for p in others if p.students > 1]
            if several and any(ph.students or ph.peers for ph in part.phases()):
                raise UserError(
                    f"{self.name}: {several[0].name} trains its students together, "
                    f"and {part.name} trains its own in turn"
                )
            adapted = [p for p in others if type(p).adapters is not Strategy.adapters]
            if adapted and any(phase.peers for phase in part.phases()):
                raise UserError(
                    f"{self.name}: {adapted[0].name} is built for the pair's teacher, "
                    f"and {part.name} replaces it by what it trained before"
                )
        leads, deploys = one_each.values()
        self._leads = leads[0] if leads else None
        self._deploys = deploys[0] if deploys else None

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for part, weight in zip(self.parts, self.weights, strict=True):
            own = part.values() | {
                WEIGHT: str(weight) if isinstance(weight, Ramp) else weight
            }
            found |= {f"{part.name}.{key}": value for key, value in own.items()}
        return found

    def at(self, progress: float) -> Self:
        now = copy.copy(self)
        now.parts = tuple(part.at(progress) for part in self.parts)
        return now

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        for part in self.parts:
            teacher_side = _side(teacher, part) if teacher and part.teachers else None
            reason = part.supports(_side(student, part), teacher_side)
            if reason:
                return reason
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module | None:
        from torch import nn

        built = {
            part.name: part.adapters(_side(student, part), _side(teacher, part))
            for part in self.parts
        }
        there = {name: module for name, module in built.items() if module is not None}
        return nn.ModuleDict(there) if there else None

    def phases(self) -> tuple[Phase, ...]:
        return self._leads.phases() if self._leads else (Phase(),)

    def deployed(
        self, students: Sequence[nn.Module], adapters: nn.Module | None
    ) -> nn.Module:
        if self._deploys is None:
            return students[0]
        return self._deploys.deployed(students, _of(adapters, self._deploys))

    @property
    def deploys_another(self) -> bool:
        return self._deploys is not None

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        early = batch.phase != self.phases()[-1].name
        for part, weight in zip(self.parts, self.weights, strict=True):
            if early and self._leads is not None and part.name != self._leads.name:
                continue
            for name, value in part.terms(self._share(batch, part)).items():
                found[f"{part.name}/{name}"] = _now(weight, batch) * value
        return found

    def _share(self, batch: Batch, part: Strategy) -> Batch:
        """The batch as the part would see it alone."""
        students = part.students + part.assistants

        def cut(one: Batch | ExtraView) -> dict[str, Any]:
            taught = self._taught(one.teachers, part, batch.phase)
            sides = {"students": one.students[:students], "teachers": taught}
            return {k: tuple(_seen(x, part) for x in v) for k, v in sides.items()}

        views = {k: dataclasses.replace(v, **cut(v)) for k, v in batch.views.items()}
        return dataclasses.replace(
            batch,
            **cut(batch),
            views={name: views[name] for name in part.views},
            adapters=_of(batch.adapters, part),
        )

    def _taught(
        self, teachers: tuple[Outputs, ...], part: Strategy, name: str
    ) -> tuple[Outputs, ...]:
        """The part's own teachers; what its phase trained before stands last."""
        leads = self._leads is not None and part.name == self._leads.name
        phase = next((p for p in part.phases() if leads and p.name == name), Phase())
        peers = len(teachers) - len(phase.peers)
        own = part.teachers if phase.teachers is None else peers
        return teachers[:own] + (teachers[peers:] if phase.peers else ())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.terms(batch)


def _phases(part: Strategy) -> tuple[Phase, ...]:
    try:
        return part.phases()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"phases() of {part.name} raised {what}") from error


def _answered(part: Strategy, side: str) -> tuple[str, ...]:
    """The views that one side answers for the part."""
    own: tuple[str, ...] | None = getattr(part, side)
    return ("", *part.views) if own is None else own


def _tapped(name: str, part: Strategy) -> bool:
    """Whether the part itself taps the feature of this name."""
    groups = [tap[:-1] for tap in part.taps if tap in ("stages", "preacts")]
    return name in (*part.taps, "logits") or name.startswith(tuple(groups))


def _side(side: Tapped, part: Strategy) -> Tapped:
    """One side of the pair as the part would be shown it alone."""
    shapes = {k: v for k, v in side.shapes.items() if _tapped(k, part)}
    return dataclasses.replace(side, shapes=shapes)


def _seen(outputs: Outputs, part: Strategy) -> Outputs:
    """A model's answer with the part's own features."""
    features = {k: v for k, v in outputs.features.items() if _tapped(k, part)}
    return dataclasses.replace(outputs, features=features)


def _of(adapters: nn.Module | None, part: Strategy) -> nn.Module | None:
    """A part's own of all the adapters."""
    children = dict(adapters.named_children()) if adapters is not None else {}
    return children.get(part.name)


def _now(weight: float | Ramp, batch: Batch) -> float:
    # progress is read for ramps only: who reads it takes no part in CUDA graphs
    return weight.at(batch.progress) if isinstance(weight, Ramp) else weight


def _weight(where: str, value: Any) -> float | Ramp:
    try:
        ramp = parse_ramp(value)
        ends = [ramp.start, ramp.end] if ramp else [float(value)]
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}={value}: {error}") from None
    if not all(0 <= end < float("inf") for end in ends):
        raise UserError(f"{where} must be >= 0, not {value}")
    return ramp or ends[0]


def combine(kinds: Sequence[type[Strategy]]) -> type[Combination]:
    """The strategy that is the sum of these; UserError where one cannot be a part."""
    name = "+".join(kind.name for kind in kinds)
    for kind in kinds:
        if kind.drives_itself():
            raise UserError(
                f"{name}: {kind.name} drives its own loop and cannot be part of a sum"
            )
        if WEIGHT in kind.parameters():
            raise UserError(
                f"{name}: {kind.name} has a hyper-parameter {WEIGHT!r} of its own, "
                "which in a sum is the part's factor"
            )
    if len({kind.name for kind in kinds}) < len(kinds):
        raise UserError(f"{name}: name each strategy once, with a weight if need be")
    papers = "; ".join(dict.fromkeys(kind.paper for kind in kinds))
    doc = "The sum of " + ", ".join(kind.name for kind in kinds) + "."
    members = {"name": name, "kinds": tuple(kinds), "paper": papers, "__doc__": doc}
    return type("Combination", (Combination,), members)
