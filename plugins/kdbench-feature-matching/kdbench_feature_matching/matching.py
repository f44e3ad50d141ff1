"""Which student stage learns from which teacher stage: a stated rule or an error.

Equal counts pair up in forward order. Otherwise each student stage is paired with the
last teacher stage of the same height and width. Where a student stage finds none, there
is no rule, and the pair of models is refused: nothing is cut off silently.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from kdbench import Outputs, Tapped

Shape = tuple[int, ...]


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


def matched_stages(student: Outputs, teacher: Outputs) -> list[tuple[str, str]]:
    """The names of the matched features of every student stage."""
    of_student, of_teacher = stage_features(student), stage_features(teacher)
    return match_stages(
        {name: feature.shape[1:] for name, feature in of_student.items()},
        {name: feature.shape[1:] for name, feature in of_teacher.items()},
    )


def stage_pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """Matched (student, teacher) features of every student stage."""
    names = matched_stages(student, teacher)
    return [(student.features[s], teacher.features[t]) for s, t in names]


def stage_shapes(student: Tapped, teacher: Tapped) -> list[tuple[Shape, Shape]]:
    """Matched (student, teacher) shapes, one per student stage, as `stage_pairs`."""
    names = match_stages(student.stages, teacher.stages)
    return [(student.stages[s], teacher.stages[t]) for s, t in names]


def why_no_stages(student: Tapped, teacher: Tapped | None) -> str | None:
    """For `supports`: a sentence unless every student stage has a teacher stage."""
    if teacher is None:
        return "there is no teacher"
    for model in (student, teacher):
        if not model.stages:
            return f"{model.name} has no stages"
    try:
        match_stages(student.stages, teacher.stages)
    except ValueError as error:
        return str(error)
    return None


def why_no_maps(student: Tapped, teacher: Tapped | None) -> str | None:
    """As `why_no_stages`, and all matched stages must be maps (C, H, W)."""
    reason = why_no_stages(student, teacher)
    if reason or teacher is None:
        return reason
    for s, t in match_stages(student.stages, teacher.stages):
        for model, stage in ((student, s), (teacher, t)):
            if len(model.stages[stage]) != 3:
                shape = model.stages[stage]
                return f"{stage} of {model.name} is no map (C, H, W): {shape}"
    return None


def why_no_like_stages(student: Tapped, teacher: Tapped | None) -> str | None:
    """As `why_no_stages`, and matched stages must be both maps or both vectors."""
    reason = why_no_stages(student, teacher)
    if reason or teacher is None:
        return reason
    pairs = match_stages(student.stages, teacher.stages)
    reasons = (why_unlike(student, s, teacher, t) for s, t in pairs)
    return next(filter(None, reasons), None)


def why_unlike(student: Tapped, s: str, teacher: Tapped | None, t: str) -> str | None:
    """A sentence unless the two taps are both maps (C, H, W) or both vectors (D,)."""
    if teacher is None:
        return "there is no teacher"
    shapes = student.shapes[s], teacher.shapes[t]
    if (len(shapes[0]), len(shapes[1])) in {(1, 1), (3, 3)}:
        return None
    return (
        f"{s} of {student.name} and {t} of {teacher.name} must both be maps (C, H, W) "
        f"or both vectors (D,): {shapes[0]} and {shapes[1]}"
    )
