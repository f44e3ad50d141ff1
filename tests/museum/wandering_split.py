"""The split is drawn by torch's global generator: every process has another test set.

checks: same-items, own-randomness
company: finishes
"""

from pathlib import Path

import torch

from kdbench import Data, Dataset, Split, Task, hookimpl


def load(data_dir: Path | None, download: bool) -> Data:
    inputs = torch.linspace(-1, 1, 200).outer(torch.arange(1.0, 5.0))
    targets = (inputs[:, 0] > 0).long()
    order = torch.randperm(200)
    train, test = order[:150], order[150:]
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
            name="wandering_split",
            summary="200 points of two classes",
            source="made up",
            task=Task(outputs=2),
            input_shape=(4,),
            load=load,
            embedded=True,
        )
    ]
