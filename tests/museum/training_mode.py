"""It leaves the student in training mode, for dropout's sake.

checks: student-kept
company: finishes
"""

from kdbench import Finished, Measure, hookimpl


def confidence(finished: Finished) -> float:
    finished.model.train()
    return 100 * finished.logits.softmax(1).amax(1).mean().item()


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="training_mode",
            summary="mean of the largest probability",
            unit="%",
            better="higher",
            tasks=("classification",),
            compute=confidence,
        )
    ]
