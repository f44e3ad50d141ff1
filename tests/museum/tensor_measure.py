"""It forgets .item(), and gives a tensor for each item.

checks: computes
company: finishes
"""

import torch

from kdbench import Finished, Measure, hookimpl


def confidence(finished: Finished) -> torch.Tensor:
    return 100 * finished.logits.softmax(1).amax(1)


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="tensor_measure",
            summary="mean of the largest probability",
            unit="%",
            better="higher",
            tasks=("classification",),
            compute=confidence,
        )
    ]
