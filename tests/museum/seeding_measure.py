"""It seeds torch's global generator, to draw the same items every time.

checks: own-randomness
company: finishes
"""

import torch

from kdbench import Finished, Measure, hookimpl


def confidence(finished: Finished) -> float:
    torch.manual_seed(0)
    some = finished.logits[torch.randperm(len(finished.logits))[:100]]
    return 100 * some.softmax(1).amax(1).mean().item()


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="seeding_measure",
            summary="mean of the largest probability",
            unit="%",
            better="higher",
            tasks=("classification",),
            compute=confidence,
        )
    ]
