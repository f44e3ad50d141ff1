"""It raises where there is no teacher, as of the teacher itself.

checks: no-teacher
company: finishes
"""

from kdbench import Finished, Measure, hookimpl


def confidence(finished: Finished) -> float:
    theirs = finished.teacher_logits.softmax(1)
    return 100 * theirs.amax(1).mean().item()


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="wants_a_teacher",
            summary="mean of the largest probability",
            unit="%",
            better="higher",
            tasks=("classification",),
            compute=confidence,
        )
    ]
