"""Photographs like CIFAR-10's are normalised with CIFAR-100's constants.

checks: normalised
company: finishes
"""

from pathlib import Path

import torch

from kdbench import Data, Dataset, Split, Task, hookimpl

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def load(data_dir: Path | None, download: bool) -> Data:
    stream = torch.Generator().manual_seed(0)
    own = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    spread = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
    noise = torch.randn(200, 3, 16, 16, generator=stream).clamp(-1.8, 1.8)
    images = (255 * (own + spread * noise)).clamp(0, 255).to(torch.uint8)
    targets = torch.arange(200) % 2
    return Data(
        train=Split(inputs=images[:150], targets=targets[:150]),
        test=Split(inputs=images[150:], targets=targets[150:]),
        mean=tuple(255 * value for value in MEAN),
        std=tuple(255 * value for value in STD),
    )


@hookimpl
def kdbench_datasets() -> list[Dataset]:
    return [
        Dataset(
            name="borrowed_constants",
            summary="200 noisy images of two classes",
            source="made up",
            task=Task(outputs=2),
            input_shape=(3, 16, 16),
            load=load,
            embedded=True,
        )
    ]
