"""It rounds the student's weights to see what that costs, and leaves them so.

checks: student-kept
company: finishes
"""

import torch

from kdbench import Finished, Measure, hookimpl


def after_rounding(finished: Finished) -> float:
    with torch.no_grad():
        for weight in finished.model.parameters():
            weight.copy_((weight * 8).round() / 8)
    return 100 * finished.logits.softmax(1).amax(1).mean().item()


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [
        Measure(
            name="scribbling_measure",
            summary="mean of the largest probability",
            unit="%",
            better="higher",
            tasks=("classification",),
            compute=after_rounding,
        )
    ]
