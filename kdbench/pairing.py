"""Which strategy can train which students by which teachers, by their kinds alone."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench.api import Dataset, Model, Phase, Strategy


def is_fitted(model: Model) -> bool:
    return model.learner == "fitted"


def why_muddled(strategy: Strategy) -> str | None:
    """Why the strategy's phases cannot be trained, or None."""
    if strategy.drives_itself():
        return None
    try:
        phases = strategy.phases()
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return f"phases() of {strategy.name} raised {type(error).__name__}: {error}"
    if not isinstance(phases, tuple | list):  # nor a generator, which may never end
        kind = type(phases).__name__
        return f"phases() of {strategy.name} must return a tuple, not a {kind}"
    if not phases or not all(isinstance(phase, Phase) for phase in phases):
        return f"phases() of {strategy.name} must return Phases, not {phases!r}"
    names = [phase.name for phase in phases]
    if "" in names[:-1] or len(set(names)) < len(names):
        return f"the phases of {strategy.name} need names of their own, not {names}"
    if phases[-1].epochs is not None:
        return f"the last phase of {strategy.name} lasts as the recipe says, or `times`"
    known = range(strategy.students + strategy.assistants)
    for phase in phases:
        learning = set(known if phase.students is None else phase.students)
        wrong = (learning | set(phase.peers)) - set(known)
        wrong |= learning & set(phase.peers)
        taught_by = set(phase.teachers or ()) - set(range(strategy.teachers))
        if wrong or taught_by:
            return (
                f"phase {phase.name!r} of {strategy.name} names students or teachers "
                "that are not there, or learn and answer at once: "
                f"{sorted(wrong | taught_by)}"
            )
    return None


def unfit(
    strategy: Strategy,
    students: Sequence[Model],
    teachers: Sequence[Model],
    dataset: Dataset,
) -> str | None:
    """Why the strategy cannot train such students by such teachers, or None."""
    images = len(dataset.input_shape) == 3 and not dataset.vocabulary
    classes = dataset.task.kind == "classification"
    if set(strategy.views) - {"same_class"} and not (images and classes):
        return f"{strategy.name} asks for further views, and those are of images"
    if strategy.views and not classes:
        return f"{strategy.name} asks for other items of a class, and there are none"
    if "same_class" in strategy.views and strategy.label_fraction < 1:
        return f"{strategy.name} asks for items of a class, and hides most labels"
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
    moves = strategy.phases() != (Phase(),) or strategy.at(1.0) != strategy
    if is_fitted(student) and moves:
        what = "has phases or ramps"
        return f"{student.name} is fitted in one go, and {strategy.name} {what}"
    own = type(strategy).deployed is not Strategy.deployed
    if own and student.deploy is not None:
        return f"{student.name} and {strategy.name} each deploy another network"
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
