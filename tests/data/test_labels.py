"""The names of classes are those of the sets' authors, in the order of the labels."""

from __future__ import annotations

import pytest

from kdbench.data import class_names, known
from kdbench.data.checks import loaded
from kdbench.data.digits import DIGITS, DIGITS_AND_INK
from kdbench.data.folder import image_folder
from kdbench.data.tabular import TABULAR
from kdbench.vision import torchvision

BY_NAME = {dataset.name: dataset for dataset in (*known.IMAGE_SETS, *TABULAR)}


def test_every_image_set_names_its_classes_or_none():
    without = {n for n, d in BY_NAME.items() if not d.task.labels}
    assert without & {d.name for d in known.IMAGE_SETS} == {"imagenet", "tiny_imagenet"}
    for name, dataset in BY_NAME.items():
        labels = dataset.task.labels
        assert len(set(labels)) == len(labels), name


def test_the_names_are_those_that_others_have():
    from sklearn.datasets import load_breast_cancer

    theirs = torchvision("datasets").FashionMNIST.classes
    assert BY_NAME["fashion_mnist"].task.labels == tuple(theirs)
    names = tuple(load_breast_cancer().target_names)
    assert BY_NAME["breast_cancer_10"].task.labels == names
    assert DIGITS.task.labels == tuple(map(str, range(10)))
    assert DIGITS_AND_INK.task.heads[0].task.labels == DIGITS.task.labels
    assert list(class_names.CIFAR100) == sorted(class_names.CIFAR100)


def test_a_folder_names_its_classes_and_parquet_does_not(write, tmp_path):
    tree = write["tree"](tmp_path / "tree")
    labels = image_folder(str(tree)).task.labels
    assert labels == tuple(f"class_{number}" for number in range(10))
    tables = write["parquet"](tmp_path / "cifar10")
    assert image_folder(f"{tables}?label=label").task.labels == ()


@pytest.mark.data
def test_cifar100_is_in_the_order_of_the_real_files(data_dir):
    names = (data_dir / "cifar100" / "classes.txt").read_text().split()
    assert list(BY_NAME["cifar100"].task.labels) == names


@pytest.mark.slow
@pytest.mark.data
def test_a_coarse_class_holds_what_its_name_says(data_dir):
    """One fine class of each, by the labels of the real files."""
    members = "whale trout rose cup pear clock couch bee wolf bridge forest camel fox "
    members += "crab woman turtle shrew oak_tree bicycle rocket"
    fine = loaded(BY_NAME["cifar100"], data_dir, False).test.targets
    coarse = loaded(BY_NAME["cifar100_coarse"], data_dir, False).test.targets
    found = dict(zip(fine.tolist(), coarse.tolist(), strict=True))
    numbers = [class_names.CIFAR100.index(name) for name in members.split()]
    assert [found[number] for number in numbers] == list(range(20))
    assert BY_NAME["cifar100_coarse"].task.labels[3] == "food_containers"
