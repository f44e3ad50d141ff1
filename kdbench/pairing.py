"""Which strategy can train which students by which teachers, by their kinds alone."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.api import Dataset, Model, Strategy


def is_fitted(model: Model) -> bool:
    return model.learner == "fitted"


def unfit(
    strategy: Strategy,
    students: Sequence[Model],
    teachers: Sequence[Model],
    dataset: Dataset,
) -> str | None:
    """Why the strategy cannot train such students by such teachers, or None."""
    images = len(dataset.input_shape) == 3 and not dataset.vocabulary
    if strategy.views and not (images and dataset.task.kind == "classification"):
        return f"{strategy.name} asks for further views, and those are of images"
    for model in (*students, *teachers):
        if is_fitted(model) and dataset.task.heads:
            return f"{model.name} has one head, and {dataset.name} asks for several"
    for student in students:
        reason = _unfit_student(strategy, student)
        if reason:
            return reason
    for teacher in teachers:
        reason = _unfit_teacher(strategy, teacher, dataset)
        if reason:
            return reason
    return None


def _unfit_student(strategy: Strategy, student: Model) -> str | None:
    if not strategy.teaches(student.learner):
        if is_fitted(student):
            return (
                f"{student.name} is fitted without gradients, and {strategy.name} "
                "gives no target to fit"
            )
        return f"{strategy.name} fits students, and {student.name} learns by gradients"
    if student.from_teacher is not None and strategy.students > 1:
        return f"{student.name} is made from the teacher: all students would be one"
    return None


def _unfit_teacher(strategy: Strategy, teacher: Model, dataset: Dataset) -> str | None:
    if teacher.deploy is not None:
        return f"{teacher.name} is deployed as another network, and cannot teach as one"
    learns = strategy.teachers and strategy.needs_probabilities
    if learns and dataset.task.kind != "regression" and not teacher.probabilities:
        return (
            f"{teacher.name} gives no probabilities (no predict_proba), from which "
            f"{strategy.name} learns; hard_pseudo_label needs only its labels"
        )
    return None
