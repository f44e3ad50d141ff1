"""Built-in datasets."""

from kdbench.api import Dataset, Source, hookimpl
from kdbench.data.digits import DIGITS, DIGITS_AND_INK
from kdbench.data.downsampled import CIFAR100_16X16
from kdbench.data.folder import image_folder
from kdbench.data.known import IMAGE_SETS
from kdbench.data.tabular import TABULAR

FOLDER = Source(
    name="folder",
    summary="folder:PATH[@SIZE][?label=COLUMN]: an image tree, or parquet files",
    find=lambda rest, host: image_folder(rest),  # noqa: ARG005 - none other is needed
)


@hookimpl
def kdbench_datasets() -> list[Dataset | Source]:
    return [DIGITS, DIGITS_AND_INK, *IMAGE_SETS, CIFAR100_16X16, *TABULAR, FOLDER]
