"""Built-in datasets."""

from kdbench.api import Dataset, hookimpl
from kdbench.data.digits import DIGITS, DIGITS_AND_INK
from kdbench.data.mnist import MNIST
from kdbench.data.tabular import TABULAR


@hookimpl
def kdbench_datasets() -> list[Dataset]:
    return [DIGITS, DIGITS_AND_INK, MNIST, *TABULAR]
