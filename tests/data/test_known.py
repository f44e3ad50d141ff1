"""The field's image sets: every layout gives the same tensors."""

from __future__ import annotations

import dataclasses

import numpy as np
import PIL.Image
import pytest
import torch

from kdbench.api import Data, Split, UserError
from kdbench.data import known
from kdbench.data.checks import loaded
from kdbench.data.folder import image_folder
from kdbench.vision import torchvision

BY_NAME = {dataset.name: dataset for dataset in known.IMAGE_SETS}
SHARDS = "{split}-{shard:05}-of-00002.parquet"


def same(one, other):
    return all(
        torch.equal(
            getattr(getattr(one, split), what), getattr(getattr(other, split), what)
        )
        for split in ("train", "test")
        for what in ("inputs", "targets")
    )


def test_every_layout_gives_the_same_tensors(write, read, tmp_path):
    """The same images as a folder, as parquet with PNG bytes, as torchvision's."""
    pickles = read(write["pickles"](tmp_path / "a"))
    tables = write["parquet"](tmp_path / "b" / "cifar10")
    tree = write["tree"](tmp_path / "c")
    images, labels = write["pictures"]("train")
    assert np.array_equal(pickles.train.inputs.numpy(), images)
    assert np.array_equal(pickles.train.targets.numpy(), labels)
    assert same(pickles, read(tmp_path / "b"))
    assert same(pickles, loaded(image_folder(str(tree)), None, False))
    folder = image_folder(f"{tables}?label=label")
    assert same(pickles, loaded(folder, None, False))


def test_torchvision_reads_the_same(write, read, tmp_path, monkeypatch):
    """Its own class, on the same small files."""

    folder = write["pickles"](tmp_path)
    ours = read(folder)
    theirs = torchvision("datasets").CIFAR10
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)
    monkeypatch.setattr(theirs, "_load_meta", lambda self: None)
    data = theirs(folder, train=True)
    assert np.array_equal(ours.train.inputs.numpy(), data.data.transpose(0, 3, 1, 2))
    assert ours.train.targets.tolist() == data.targets


@pytest.mark.parametrize(
    "pattern",
    [
        "cifar10/" + SHARDS,
        "CIFAR-10/data/" + SHARDS,
        "uoft-cs___cifar10/plain_text/" + SHARDS,
        "datasets--uoft-cs--cifar10/snapshots/1a2b/plain_text/" + SHARDS,
        "sets/cifar_10/{split}/{shard:04}.parquet",
        "cifar10/{split}{shard}.parquet",
    ],
)
def test_parquet_is_found_under_the_hubs_names(write, read, tmp_path, pattern):
    data = read(write["parquet"](tmp_path, pattern))
    assert data.train.targets.tolist() == [i // 2 for i in range(20)]
    assert np.array_equal(data.test.inputs.numpy(), write["pictures"]("test")[0])


def test_a_folder_that_is_the_set_itself(write, read, tmp_path):
    assert len(read(write["parquet"](tmp_path / "cifar10")).test.targets) == 10


def test_the_column_is_the_sets_own_or_the_only_one(write, read, refused, tmp_path):
    folder = write["parquet"](tmp_path / "cifar10")
    assert read(folder, label="half", classes=2).train.targets.max() == 1
    refused(read, "'labels'", "'label'", data_dir=folder, label="labels")


def test_where_a_set_lies_is_told_without_decoding_it(write, tmp_path, monkeypatch):
    monkeypatch.setattr(known, "decoded", lambda *_: pytest.fail("decoded"))
    write["pickles"](tmp_path)
    assert BY_NAME["cifar10"].locate(tmp_path).is_relative_to(tmp_path)
    with pytest.raises(UserError, match="'cifar100' not found"):
        BY_NAME["cifar100"].locate(tmp_path)


def test_binary_columns_are_images_too(write, read, tmp_path):
    for split in ("train", "test"):
        rows = write["rows_of"](split)
        rows = [{"photo": r["img"]["bytes"], "y": r["label"]} for r in rows]
        write["rows"](tmp_path / "cifar10" / f"{split}.parquet", rows)
    data = read(tmp_path)
    assert np.array_equal(data.train.inputs.numpy(), write["pictures"]("train")[0])
    assert data.train.targets.max() == 9


def test_one_of_several_configurations(write, read, refused, tmp_path):
    write["parquet"](tmp_path / "svhn" / "cropped_digits")
    write["parquet"](tmp_path / "svhn" / "full_numbers")
    assert len(read(tmp_path, known.SVHN).train.targets) == 20
    several = "holds several sets of parquet files"
    refused(read, several, data_dir=tmp_path, image_set=known.SVHN, configuration="")


OTHERS = {
    "fashion_mnist": (known.FASHION_MNIST, "mnist", {"channels": 1, "size": 28}),
    "svhn": (known.SVHN, "svhn", {}),
    "stl10": (known.STL10, "stl10", {"size": 96}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_layouts_of_torchvision(write, read, tmp_path, name):
    image_set, written, kind = OTHERS[name]
    data = read(write[written](tmp_path), image_set)
    for split in ("train", "test"):
        images, labels = write["pictures"](split, **kind)
        assert np.array_equal(getattr(data, split).inputs.numpy(), images)
        assert np.array_equal(getattr(data, split).targets.numpy(), labels)


def test_pickles_of_numpy_1_and_2_are_read(write, read, tmp_path):
    write["pickles"](tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(old)
    assert len(read(tmp_path).test.targets) == 10


TEN = {"layout": known.wnid_tree(10), "classes": 10}


def test_tiny_imagenets_own_layout(write, read, tmp_path):
    write["tiny"](tmp_path / "tiny-imagenet-200")
    data = read(tmp_path, known.TINY_IMAGENET, **TEN)
    images, labels = write["pictures"]("test", size=64)
    assert data.test.targets.tolist() == labels[::-1].tolist()
    assert np.array_equal(data.test.inputs[0].numpy(), images[-1])
    grey = data.test.inputs[9 - 5]
    assert torch.equal(grey[0], grey[1])
    assert data.notes == (
        "4 of 20 train images were not RGB and were converted",
        "2 of 10 test images were not RGB and were converted",
    )


def test_imagenet_is_kept_as_central_squares(write, read, tmp_path):
    """Shorter side 256, as torchvision's Resize and CenterCrop make it."""

    sizes = [(300, 400), (400, 300), (200, 333), (256, 256), (257, 511)]
    for name in ("train", "val"):
        for row, size in enumerate(sizes):
            folder = tmp_path / "imagenet" / name / f"n0000000{row}"
            folder.mkdir(parents=True)
            stream = np.random.default_rng(row + len(name))
            pixels = stream.integers(0, 256, (*size, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / "one.png")
    five = {"layout": known.wnid_tree(5), "classes": 5, "items": (5, 5)}
    data = read(tmp_path, known.IMAGENET, **five)
    transforms = torchvision("transforms")
    usual = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(256), transforms.PILToTensor()]
    )
    for row in range(len(sizes)):
        path = tmp_path / "imagenet" / "val" / f"n0000000{row}" / "one.png"
        assert torch.equal(data.test.inputs[row], usual(PIL.Image.open(path)))
    crop = transforms.CenterCrop(224)
    published = transforms.Compose([transforms.Resize(256), crop])
    expected = transforms.PILToTensor()(published(PIL.Image.open(path)))
    assert torch.equal(crop(data.test.inputs[4]), expected)


def test_imagenet_declares_what_is_stored_and_what_models_see():
    dataset = BY_NAME["imagenet"]
    assert dataset.input_shape == (3, 224, 224)
    assert dataset.example(2).shape == (2, 3, 224, 224)
    for size, right in ((256, True), (224, False)):
        split = Split(
            inputs=torch.zeros(1, 3, size, size, dtype=torch.uint8),
            targets=torch.zeros(1, dtype=torch.int64),
        )
        data = Data(train=split, test=split, mean=(0.0,) * 3, std=(1.0,) * 3)
        given = dataclasses.replace(dataset, load=lambda *_, data=data: data)
        if right:
            assert loaded(given, None, False) is data
        else:
            with pytest.raises(UserError, match=r"not \(3, 256, 256\) as declared"):
                loaded(given, None, False)


def test_download_goes_through_torchvision(write, read, tmp_path, monkeypatch):

    calls = []

    def fetched(root, **arguments):
        calls.append(arguments)
        if not (root / "cifar-10-batches-py").exists():
            write["pickles"](root)

    monkeypatch.setattr(torchvision("datasets"), "CIFAR10", fetched)
    assert len(read(tmp_path, download=True).train.targets) == 20
    assert calls == [
        {"train": True, "download": True},
        {"train": False, "download": True},
    ]
    read(tmp_path, download=True)
    assert len(calls) == 2  # what is there is not fetched again
