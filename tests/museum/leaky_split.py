"""The test set begins before the training set ends.

checks: no-leakage
company: finishes
"""

from pathlib import Path

import torch

from kdbench import Data, Dataset, Split, Task, hookimpl


def load(data_dir: Path | None, download: bool) -> Data:
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=stream)
    targets = (inputs[:, 0] > 0).long()
    train, test = slice(0, 150), slice(130, 200)
    return Data(
        train=Split(inputs=inputs[train], targets=targets[train]),
        test=Split(inputs=inputs[test], targets=targets[test]),
        mean=tuple(inputs[train].mean(0).tolist()),
        std=tuple(inputs[train].std(0).tolist()),
    )


@hookimpl
def kdbench_datasets() -> list[Dataset]:
    return [
        Dataset(
            name="leaky_split",
            summary="200 points of two classes",
            source="made up",
            task=Task(outputs=2),
            input_shape=(6,),
            load=load,
            embedded=True,
        )
    ]
