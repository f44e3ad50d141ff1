"""Which student layer learns from which teacher layer. Layers count from 1."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from kdbench import Batch, Tapped
from kdbench_text.reading import presence


def at_same_depth(student: int, teacher: int) -> list[int]:
    """For each student layer the teacher layer as far up, rounded up.

    Where the student's number divides the teacher's this is the uniform mapping of Jiao
    et al. 2019 and the PKD-skip of Sun et al. 2019: 2, 4, 6 for 3 of 6.
    """
    return [-(-layer * teacher // student) for layer in range(1, student + 1)]


def last_ones(student: int, teacher: int) -> list[int]:
    """The teacher's last layers, in order: PKD-last of Sun et al. 2019."""
    return list(range(teacher - student + 1, teacher + 1))


def why_not_layered(student: Tapped, teacher: Tapped | None) -> str | None:
    """A sentence where a model has no layers of texts to learn from, else None."""
    if teacher is None:
        return "there is no teacher"
    for model in (student, teacher):
        if not model.stages:
            return f"{model.name} has no layers (stages)"
        for stage, shape in model.stages.items():
            if len(shape) != 2:
                return f"{stage} of {model.name} is no (L, D) layer of a text: {shape}"
    if len(student.stages) > len(teacher.stages):
        return (
            f"{student.name} has {len(student.stages)} layers, more than the "
            f"{len(teacher.stages)} of {teacher.name}"
        )
    return None


def layer_widths(model: Tapped) -> list[int]:
    """The width D of each layer, lowest first."""
    return [shape[-1] for shape in model.stages.values()]


def layer_states(features: Mapping[str, Tensor]) -> list[Tensor]:
    """The tapped layers (B, L, D), lowest first."""
    return [x for name, x in features.items() if name.startswith("stage")]


def text_positions(batch: Batch, length: int) -> Tensor:
    """(B, length) bool: where the batch's texts are, in features cut to `length`."""
    return presence(batch.inputs[:, :length])


def same_length(features: Sequence[Tensor]) -> int:
    """The one L of (B, L, D) features.

    ValueError where the models cut the texts differently.
    """
    lengths = {x.shape[1] for x in features}
    if len(lengths) != 1:
        raise ValueError(f"student and teacher cut the texts differently: {lengths}")
    return lengths.pop()
