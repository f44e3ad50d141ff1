"""It keeps a moving mean over all students that it has seen.

checks: same-twice
company: finishes
"""

from kdbench import Finished, Measure, hookimpl

_seen: list[float] = []


def confidence(finished: Finished) -> float:
    _seen.append(100 * finished.logits.softmax(1).amax(1).mean().item())
    return sum(_seen) / len(_seen) + len(_seen)


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="wandering_measure",
            summary="mean of the largest probability",
            unit="%",
            better="higher",
            tasks=("classification",),
            compute=confidence,
        )
    ]
