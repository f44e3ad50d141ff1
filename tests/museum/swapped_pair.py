"""Teacher and student are swapped: the small one teaches the large one.

checks: smaller-student
company: finishes
"""

from kdbench import Pair, hookimpl


@hookimpl
def kdbench_pairs() -> list[Pair]:
    return [
        Pair(
            name="swapped_pair",
            teachers=("convnet_6",),
            students=("convnet_14",),
            summary="plain convnets",
        )
    ]
