"""Mistakes in image sets: each is refused, or told, by file and row."""

from __future__ import annotations

import gzip
import pickle

import pyarrow.parquet as pq
import pytest

from kdbench.api import UserError
from kdbench.data import known
from kdbench.data.checks import loaded
from kdbench.vision import torchvision

BY_NAME = {dataset.name: dataset for dataset in known.IMAGE_SETS}


@pytest.mark.parametrize("name", BY_NAME)
def test_missing_files_say_what_is_expected_where(tmp_path, name):
    for folder in (None, tmp_path):
        with pytest.raises(UserError, match=name) as caught:
            loaded(BY_NAME[name], folder, False)
        by_hand = name in ("imagenet", "tiny_imagenet")
        assert ("fetched by hand" if by_hand else "--download") in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "parquet" in str(caught.value)


def test_a_download_that_fails_is_told(read, refused, tmp_path, monkeypatch):

    def fetched(root, **arguments):
        raise gzip.BadGzipFile("cut")

    monkeypatch.setattr(torchvision("datasets"), "CIFAR10", fetched)
    words = (f"could not be downloaded to {tmp_path}: cut", "expected torchvision's")
    refused(read, *words, data_dir=tmp_path, download=True)


def test_what_cannot_be_downloaded_says_so(tmp_path):
    with pytest.raises(UserError, match="--download cannot fetch it"):
        loaded(BY_NAME["imagenet"], tmp_path, True)


OTHERS = {
    "fashion_mnist": (known.FASHION_MNIST, "mnist", {"channels": 1, "size": 28}),
    "svhn": (known.SVHN, "svhn", {}),
    "stl10": (known.STL10, "stl10", {"size": 96}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_truncated_download_is_named(write, read, refused, tmp_path, name):
    image_set, written, _ = OTHERS[name]
    write[written](tmp_path)
    [victim] = [
        path
        for path in tmp_path.rglob("*")
        if path.name in ("train-images-idx3-ubyte", "train_32x32.mat", "train_X.bin")
    ]
    victim.write_bytes(victim.read_bytes()[:2000])
    refused(read, str(victim), "fetch it again", data_dir=tmp_path, image_set=image_set)
    victim.unlink()
    missing = ("is not whole", str(victim), "--download")
    refused(read, *missing, data_dir=tmp_path, image_set=image_set)


def test_a_truncated_pickle_and_one_that_is_a_program(write, read, refused, tmp_path):
    write["pickles"](tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:1000])
    refused(read, f"{path} cannot be read", "cut short", data_dir=tmp_path)
    path.write_bytes(pickle.dumps({"data": print, "labels": []}))
    refused(read, str(path), "print has no place", data_dir=tmp_path)


def test_a_truncated_parquet_file_is_named(write, read, refused, tmp_path):
    folder = write["parquet"](tmp_path / "cifar10")
    path = folder / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    refused(read, f"{path} cannot be read as parquet", "again", data_dir=tmp_path)


def change(write, row, **values):
    def spoil(folder):
        rows = write["rows_of"]("test")
        rows[row] = {**rows[row], **values}
        return write["rows"](folder / "test-00000-of-00002.parquet", rows[:5])

    return spoil


def grey(write):
    return write["png"](write["pictures"]("test", channels=1)[0][0])


BAD_ROWS = {
    "corrupt": (lambda w: {"img": {"bytes": b"no image", "path": ""}}, "no image that"),
    "cut": (
        lambda w: {"img": {"bytes": w["png"](w["pictures"]("test")[0][0])[:500]}},
        "no image that can be read (500 bytes)",
    ),
    "nothing": (lambda w: {"img": {"bytes": None, "path": "x"}}, "no image bytes"),
    "grey": (
        lambda w: {"img": {"bytes": grey(w)}},
        "a grey image (mode L) where RGB was expected",
    ),
    "size": (
        lambda w: {"img": {"bytes": w["png"](w["pictures"]("test", size=31)[0][0])}},
        "31x31 pixels instead of 32x32",
    ),
    "label": (lambda w: {"label": 10}, "label 10 is not in 0..9"),
    "negative": (lambda w: {"label": -1}, "label -1 is not in 0..9"),
    "no label": (lambda w: {"label": None}, "the label is missing"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows_are_refused_by_file_and_row(write, read, refused, tmp_path, kind):
    values, words = BAD_ROWS[kind]
    folder = write["parquet"](tmp_path / "cifar10")
    path = change(write, 3, **values(write))(folder)
    refused(read, f"{path}, row 3: ", words, data_dir=tmp_path)


@pytest.mark.parametrize("row", [0, 2])
def test_rows_are_counted_in_their_own_file(write, read, refused, tmp_path, row):
    folder = write["parquet"](tmp_path / "cifar10")
    rows = write["rows_of"]("test")[5:]
    rows[row]["label"] = 99
    path = write["rows"](folder / "test-00001-of-00002.parquet", rows)
    refused(read, f"{path}, row {row}: label 99", data_dir=tmp_path)


def test_a_parquet_file_without_an_image_column(write, read, refused, tmp_path):
    folder = write["parquet"](tmp_path / "cifar10")
    path = write["rows"](folder / "train-00000-of-00002.parquet", [{"label": 1}])
    refused(read, f"{path}: needs one image column", "label (int64)", data_dir=tmp_path)


def test_a_parquet_file_without_labels(write, read, refused, tmp_path):
    for split in ("train", "test"):
        rows = [{"img": row["img"]} for row in write["rows_of"](split)]
        write["rows"](tmp_path / "cifar10" / f"{split}.parquet", rows)
    refused(read, "train: there is no column of integer labels", data_dir=tmp_path)


def test_an_empty_split_and_one_that_is_not_whole(write, read, refused, tmp_path):
    folder = write["parquet"](tmp_path / "cifar10")
    refused(read, "test: 10 images instead of 11", data_dir=tmp_path, items=(20, 11))
    for path in folder.glob("test-*"):
        path.unlink()
    refused(read, "needs train-*.parquet and test-*", "it has train", data_dir=tmp_path)

    table = pq.read_table(folder / "train-00000-of-00002.parquet")
    pq.write_table(table.slice(0, 0), folder / "test.parquet")
    refused(read, "test: there are no images", data_dir=tmp_path)


def test_overlap_of_train_and_test_is_told_with_counts(write, read, tmp_path):
    folder = write["parquet"](tmp_path / "cifar10")
    rows = write["rows_of"]("test")[5:]
    for row in (1, 4):
        rows[row]["img"] = write["rows_of"]("train")[12]["img"]
    write["rows"](folder / "test-00001-of-00002.parquet", rows)
    [note] = read(tmp_path).notes
    assert note == (
        "2 of 10 test images are in the training set too, pixel by pixel; the first: "
        "test-00001-of-00002.parquet, row 1 = train-00001-of-00002.parquet, row 2"
    )
    assert read(tmp_path).notes == (note,)  # out of the cache as well


def test_tiny_imagenet_that_is_not_whole(write, read, refused, tmp_path):
    root = write["tiny"](tmp_path / "tiny-imagenet-200")
    tiny = {"data_dir": tmp_path, "image_set": known.TINY_IMAGENET}
    refused(read, "holds 10 classes instead of 200", **tiny)
    (root / "val" / "images" / "val_03.png").unlink()
    tiny |= {"layout": known.wnid_tree(10), "classes": 10}
    refused(read, "val_annotations.txt, line 7: there is no", **tiny)
