"""Built-in datasets."""

from kdbench.api import Dataset, hookimpl
from kdbench.data.digits import DIGITS
from kdbench.data.mnist import MNIST


@hookimpl
def kdbench_datasets() -> list[Dataset]:
    return [DIGITS, MNIST]
