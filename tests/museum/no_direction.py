"""A measure says that higher is better in a word that nobody knows.

checks: described
company: finishes
"""

from kdbench import Finished, Measure, hookimpl


def confidence(finished: Finished) -> float:
    return 100 * finished.logits.softmax(1).amax(1).mean().item()


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="no_direction",
            summary="mean of the largest probability",
            unit="%",
            better="up",
            tasks=("classification",),
            compute=confidence,
        )
    ]
