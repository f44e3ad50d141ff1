"""Tables: rows of numbers, to be classified or to predict a number from.

Those that scikit-learn carries are embedded; California housing is read where the user
has it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import Data, Dataset, Split, UserError
from kdbench.tasks import Task


def load_diabetes(data_dir: Path | None, download: bool) -> Data:  # noqa: ARG001
    """A fixed split: 331 train, 111 test; inputs (N, 10), targets (N, 1)."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return _split(found.data, torch.tensor(found.target).unsqueeze(1).float(), 111)


def load_california(data_dir: Path | None, download: bool) -> Data:
    """A fixed split: 16,512 train, 4,128 test; inputs (N, 8), targets (N, 1).

    Read from scikit-learn's own cache in `data_dir`. Raises UserError where it is not.
    """
    from sklearn.datasets import fetch_california_housing

    if data_dir is None:
        raise UserError(
            "dataset 'california_housing' needs a file: name its folder with "
            "--data-dir DIR or KDBENCH_DATA, and add --download to fetch it where "
            "there is a network"
        )
    try:
        found = fetch_california_housing(
            data_home=data_dir, download_if_missing=download
        )
    except Exception as error:  # a cache can be damaged in many ways
        doing = "could not be downloaded to" if download else "not found in"
        raise UserError(
            f"dataset 'california_housing' {doing} {data_dir}: {error}\n"
            "  expected scikit-learn's cal_housing_py3.pkz there; --download fetches "
            "it where there is a network"
        ) from error
    targets = torch.tensor(found.target).unsqueeze(1).float()
    return _split(found.data, targets, round(0.2 * len(targets)))


def load_breast_cancer(data_dir: Path | None, download: bool) -> Data:  # noqa: ARG001
    """A fixed stratified split: 426 train, 143 test; inputs (N, 10).

    Of the thirty columns the ten means; the others are their errors and extremes.
    """
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    targets = torch.tensor(found.target, dtype=torch.int64)
    return _split(found.data[:, :10], targets, 143, stratified=True)


def load_noise(data_dir: Path | None, download: bool) -> Data:  # noqa: ARG001
    """800 train, 200 test: ten standard normal numbers and one that is unrelated."""
    stream = torch.Generator().manual_seed(0)
    inputs = torch.randn(1000, 10, generator=stream)
    targets = torch.randn(1000, 1, generator=stream)
    return _data(inputs, targets, torch.arange(800), torch.arange(800, 1000))


def _split(
    inputs: object, targets: Tensor, test_items: int, stratified: bool = False
) -> Data:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        range(len(targets)),
        test_size=test_items,
        random_state=0,
        stratify=targets if stratified else None,
    )
    numbers = torch.as_tensor(inputs, dtype=torch.float32)
    return _data(numbers, targets, torch.tensor(train), torch.tensor(test))


def _data(inputs: Tensor, targets: Tensor, train: Tensor, test: Tensor) -> Data:
    known = inputs[train].double()
    return Data(
        train=Split(inputs=inputs[train], targets=targets[train]),
        test=Split(inputs=inputs[test], targets=targets[test]),
        mean=tuple(known.mean(0).tolist()),
        std=tuple(known.std(0, correction=0).tolist()),
    )


TABULAR = [
    Dataset(
        name="diabetes",
        summary="442 patients, ten baseline numbers, disease progression; embedded",
        source="Efron et al. 2004, Least angle regression; carried by scikit-learn",
        task=Task(kind="regression", outputs=1),
        input_shape=(10,),
        load=load_diabetes,
        embedded=True,
    ),
    Dataset(
        name="california_housing",
        summary="20,640 districts, eight numbers, median house value in 100,000 USD",
        source="Pace & Barry 1997, Sparse spatial autoregressions",
        task=Task(kind="regression", outputs=1, unit="100 kUSD"),
        input_shape=(8,),
        load=load_california,
    ),
    Dataset(
        name="breast_cancer_10",
        summary="569 tumours, ten measured means, malignant or benign; embedded",
        source="Wolberg et al. 1995, UCI; carried by scikit-learn",
        task=Task(outputs=2, labels=("malignant", "benign")),
        input_shape=(10,),
        load=load_breast_cancer,
        embedded=True,
    ),
    Dataset(
        name="noise",
        summary="ten random numbers and an unrelated one: nothing can be learned",
        source="standard normal numbers, seed 0; the best RMSE there is, is 1",
        task=Task(kind="regression", outputs=1),
        input_shape=(10,),
        load=load_noise,
        embedded=True,
    ),
]
