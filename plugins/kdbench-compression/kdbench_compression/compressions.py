"""What can be done to a finished student: pruned or quantised, then trained further."""

from __future__ import annotations

import dataclasses
from functools import partial

from kdbench import Compression, Model
from kdbench_compression.magnitude import magnitude_pruned
from kdbench_compression.pruning import pruned
from kdbench_compression.quantisation import int8


def compressions() -> list[Compression]:
    """All of them are trained further, by the strategy that trained the student."""
    return [
        *(
            Compression(
                name=f"structured_{percent}",
                summary=f"{percent}% of each layer's channels removed",
                model=partial(_structured, percent),
                tunes=True,
            )
            for percent in (25, 50, 75)
        ),
        *(
            Compression(
                name=f"magnitude_{percent}",
                summary=f"the {percent}% smallest weights set to zero",
                model=partial(_magnitude, percent),
                tunes=True,
            )
            for percent in (50, 80, 90)
        ),
        Compression(
            name="int8_aware",
            summary="8-bit weights and activations, trained with fake quantisation",
            model=_int8_aware,
            tunes=True,
        ),
    ]


def _structured(percent: int, base: Model) -> Model:
    model = pruned(base, percent / 100)
    return dataclasses.replace(model, name=f"{base.name}/structured_{percent}")


def _magnitude(percent: int, base: Model) -> Model:
    return magnitude_pruned(base, percent / 100)


def _int8_aware(base: Model) -> Model:
    # it starts from the finished student, and not from what that itself was made of
    model = int8(dataclasses.replace(base, from_teacher=None), start="teacher")
    return dataclasses.replace(model, name=f"{base.name}/int8_aware")
