"""Its student's name is misspelt.

checks: resolves
company: finishes
"""

from kdbench import Pair, hookimpl


@hookimpl
def kdbench_pairs() -> list[Pair]:
    return [
        Pair(
            name="unknown_student",
            teachers=("convnet_14",),
            students=("convnet6",),
            summary="plain convnets",
        )
    ]
