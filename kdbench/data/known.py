"""The image sets of the field, each from torchvision's layout or a parquet export.

Means and standard deviations are the published ones of the training pixels, on the
scale 0 to 1.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from kdbench.api import Data, Dataset, UserError
from kdbench.data import class_names, torchvision_files, tree
from kdbench.data.decoded import decoded
from kdbench.data.images import Form, Found, Part, check_items
from kdbench.data.locate import ImageSet, locate
from kdbench.data.splits import splits
from kdbench.tasks import Task

BY_TRAIN = ({"train": True}, {"train": False})
BY_SPLIT = ({"split": "train"}, {"split": "test"})
WNID = re.compile(r"n\d{8}")


def load(data_dir: Path | None, download: bool, *, known: ImageSet) -> Data:
    """The decoded images, (N, C, H, W) uint8, with the published mean and std.

    Raises UserError where the files are missing, damaged or not those of the set.
    """
    found = locate(known, data_dir, download)

    def read() -> Mapping[str, Part]:
        parts = found.read()
        wanted = dict(zip(("train", "test"), known.items, strict=True))
        check_items(parts, wanted, found.root)
        return parts

    images = decoded(dataclasses.replace(found, read=read), known.form)
    train, test = splits(images, known.label, known.classes, found.root)
    return Data(
        train=train,
        test=test,
        mean=tuple(255 * mean for mean in known.mean),
        std=tuple(255 * std for std in known.std),
        notes=images.notes,
    )


def _root(data_dir: Path | None, *, known: ImageSet) -> Path:
    return locate(known, data_dir, False).root


def wnid_tree(classes: int) -> Callable[[Path], Found | None]:
    """Finds ImageNet's trees: train/<wnid>/..., and val likewise or annotated.

    Raises UserError where there are such folders, but not as many as classes.
    """

    def find(root: Path) -> Found | None:
        names = tree.classes(root)
        if not names or not all(WNID.fullmatch(name) for name in names):
            return None
        if len(names) != classes:
            raise UserError(
                f"{root / 'train'} holds {len(names)} classes instead of {classes}; "
                "complete it"
            )
        return tree.find(root, ("val",))

    return find


CIFAR10 = ImageSet(
    name="cifar10",
    summary="50,000 / 10,000 small photographs, 32x32 RGB, 10 classes",
    source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
    classes=10,
    items=(50_000, 10_000),
    form=Form(shape=(3, 32, 32)),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    layout=torchvision_files.find_cifar10,
    expected="cifar-10-batches-py/data_batch_1 and so on",
    folders=("cifar10",),
    fetch=("CIFAR10", BY_TRAIN),
    labels=class_names.CIFAR10,
)

CIFAR100 = dataclasses.replace(
    CIFAR10,
    name="cifar100",
    summary="50,000 / 10,000 small photographs, 32x32 RGB, 100 classes",
    classes=100,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    layout=torchvision_files.find_cifar100,
    expected="cifar-100-python/train and test",
    folders=("cifar100",),
    fetch=("CIFAR100", BY_TRAIN),
    label="fine_label",
    labels=class_names.CIFAR100,
)

CIFAR100_COARSE = dataclasses.replace(
    CIFAR100,
    name="cifar100_coarse",
    summary="CIFAR-100 by its 20 coarse classes, 32x32 RGB",
    classes=20,
    label="coarse_label",
    labels=class_names.CIFAR100_COARSE,
)

MNIST = ImageSet(
    name="mnist",
    summary="60,000 / 10,000 handwritten digits, 28x28 grey",
    source="LeCun, Cortes & Burges 1998 (CC BY-SA 3.0)",
    classes=10,
    items=(60_000, 10_000),
    form=Form(shape=(1, 28, 28)),
    mean=(0.1307,),
    std=(0.3081,),
    layout=partial(torchvision_files.find_idx, name="MNIST"),
    expected="MNIST/raw/*-ubyte",
    folders=("mnist",),
    fetch=("MNIST", BY_TRAIN),
    labels=class_names.DIGITS,
)

FASHION_MNIST = dataclasses.replace(
    MNIST,
    name="fashion_mnist",
    summary="60,000 / 10,000 articles of clothing, 28x28 grey, 10 classes",
    source="Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747 (MIT)",
    mean=(0.2860,),
    std=(0.3530,),
    layout=partial(torchvision_files.find_idx, name="FashionMNIST"),
    expected="FashionMNIST/raw/*-ubyte",
    folders=("fashionmnist",),
    fetch=("FashionMNIST", BY_TRAIN),
    labels=class_names.FASHION_MNIST,
)

SVHN = ImageSet(
    name="svhn",
    summary="73,257 / 26,032 digits of house numbers, 32x32 RGB",
    source="Netzer et al. 2011, Reading digits in natural images",
    classes=10,
    items=(73_257, 26_032),
    form=Form(shape=(3, 32, 32)),
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    layout=torchvision_files.find_svhn,
    expected="train_32x32.mat and test_32x32.mat",
    folders=("svhn",),
    fetch=("SVHN", BY_SPLIT),
    configuration="cropped_digits",
    labels=class_names.DIGITS,
)

STL10 = ImageSet(
    name="stl10",
    summary="5,000 / 8,000 photographs, 96x96 RGB, 10 classes",
    source="Coates, Lee & Ng 2011, AISTATS",
    classes=10,
    items=(5_000, 8_000),
    form=Form(shape=(3, 96, 96)),
    mean=(0.4467, 0.4398, 0.4066),
    std=(0.2603, 0.2566, 0.2713),
    layout=torchvision_files.find_stl10,
    expected="stl10_binary/train_X.bin and so on",
    folders=("stl10",),
    fetch=("STL10", BY_SPLIT),
    labels=class_names.STL10,
)

TINY_IMAGENET = ImageSet(
    name="tiny_imagenet",
    summary="100,000 / 10,000 photographs, 64x64 RGB, 200 classes of ImageNet",
    source="Le & Yang 2015, Stanford CS 231N; tested on its validation images",
    classes=200,
    items=(100_000, 10_000),
    form=Form(shape=(3, 64, 64), converted=True),
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
    layout=wnid_tree(200),
    expected="tiny-imagenet-200/train/<wnid>/images and val/val_annotations.txt",
    folders=("tinyimagenet", "tinyimagenet200"),
    tests=("validation",),
)

IMAGENET = ImageSet(
    name="imagenet",
    summary="1,281,167 / 50,000 photographs, RGB, 1,000 classes; kept as 256x256",
    source="Russakovsky et al. 2015, arXiv:1409.0575; tested on its validation images",
    classes=1000,
    items=(1_281_167, 50_000),
    form=Form(shape=(3, 256, 256), resized=True, converted=True),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    layout=wnid_tree(1000),
    expected="imagenet/train/<wnid> and imagenet/val/<wnid>",
    folders=("imagenet", "imagenet1k", "imagenet2012", "ilsvrc2012"),
    tests=("validation",),
)
"""Every image is kept as its central square of 256: the crop of 224 that is tested is
that of the field to the pixel, but the random crops to train on are cut from the square
and never from what lies beside it. The square has one size, so that an epoch reads a
mapped file and decodes nothing; whole photographs would take three times the disk."""


def _dataset(known: ImageSet) -> Dataset:
    return Dataset(
        name=known.name,
        summary=known.summary,
        source=known.source,
        task=Task(outputs=known.classes, labels=known.labels),
        input_shape=known.form.shape,
        load=partial(load, known=known),
        locate=partial(_root, known=known),
    )


IMAGE_SETS = [
    *(
        _dataset(known)
        for known in (
            CIFAR10,
            CIFAR100,
            CIFAR100_COARSE,
            MNIST,
            FASHION_MNIST,
            SVHN,
            STL10,
            TINY_IMAGENET,
        )
    ),
    dataclasses.replace(
        _dataset(IMAGENET), input_shape=(3, 224, 224), stored_shape=IMAGENET.form.shape
    ),
]
