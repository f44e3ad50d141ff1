"""Which student stage learns from which teacher stage: a stated rule or an error.

Equal counts pair up in forward order. Otherwise each student stage is paired with the
last teacher stage of the same height and width. Where a student stage finds none, there
is no rule, and the pair of models is refused: nothing is cut off silently.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from kdbench import Outputs, Tapped


def match_stages(
    student: Mapping[str, Sequence[int]], teacher: Mapping[str, Sequence[int]]
) -> list[tuple[str, str]]:
    """(student stage, teacher stage) names, from name -> shape on either side.

    Shapes end in (H, W) where a stage is spatial. Raises ValueError naming both lists
    where counts differ and some student stage has no teacher stage of its size.
    """
    if len(student) == len(teacher):
        return list(zip(student, teacher, strict=True))
    last = {tuple(s[-2:]): name for name, s in teacher.items() if len(s) >= 3}
    pairs = [
        (name, last[tuple(shape[-2:])])
        for name, shape in student.items()
        if tuple(shape[-2:]) in last
    ]
    if len(pairs) < len(student):
        raise ValueError(
            "no rule matches these stages: counts differ, and not every student stage "
            f"has a teacher stage of its height and width; student {_listed(student)}; "
            f"teacher {_listed(teacher)}"
        )
    return pairs


def _listed(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{k} {tuple(v)}" for k, v in shapes.items()) or "none"


def stage_features(outputs: Outputs) -> dict[str, Tensor]:
    """The tapped stages of one model, in forward order."""
    return {k: v for k, v in outputs.features.items() if k.startswith("stage")}


def stage_pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """Matched (student, teacher) features of every student stage."""
    of_student, of_teacher = stage_features(student), stage_features(teacher)
    names = match_stages(
        {name: feature.shape[1:] for name, feature in of_student.items()},
        {name: feature.shape[1:] for name, feature in of_teacher.items()},
    )
    return [(of_student[s], of_teacher[t]) for s, t in names]


def lacks(tap: str, student: Tapped, teacher: Tapped | None) -> str | None:
    """A sentence if a model is missing or does not have this tap, else None."""
    for model in (student, teacher):
        if model is None:
            return "there is no teacher"
        if tap not in model.shapes:
            known = ", ".join(name for name in model.shapes if name != "logits")
            return f"{model.name} has no {tap}; it has {known or 'no features'}"
    return None
