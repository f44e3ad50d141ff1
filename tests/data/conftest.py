"""Small image sets in every layout that the loaders read, from the same pixels."""

from __future__ import annotations

import dataclasses
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io

from kdbench.api import UserError
from kdbench.data import known

ITEMS = {"train": 20, "test": 10}
SHARDS = "{split}-{shard:05}-of-00002.parquet"


@pytest.fixture(autouse=True)
def cache(request, tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """The folder of decoded sets, empty at first; tests of real data share one."""
    folder = tmp_path / "cache"
    if request.node.get_closest_marker("data"):
        folder = tmp_path_factory.getbasetemp() / "real"
    monkeypatch.setenv("KDBENCH_CACHE", str(folder))
    return folder / "decoded"


def pictures(split, channels=3, size=32):
    """(N, C, H, W) uint8 noise and sorted labels of ten classes."""
    stream = np.random.default_rng([channels, len(split)])
    shape = (ITEMS[split], channels, size, size)
    images = stream.integers(0, 256, shape, dtype=np.uint8)
    return images, np.arange(ITEMS[split]) * 10 // ITEMS[split]


def picture(pixels) -> PIL.Image.Image:
    last = pixels.transpose(1, 2, 0)
    return PIL.Image.fromarray(last if last.shape[2] > 1 else last[:, :, 0])


def png(pixels) -> bytes:
    file = io.BytesIO()
    picture(pixels).save(file, "PNG")
    return file.getvalue()


def write_tree(root, names=("train", "test"), **kind):
    """train/class_0/00.png and so on; the folder."""
    for split, name in zip(ITEMS, names, strict=True):
        for row, (pixels, label) in enumerate(
            zip(*pictures(split, **kind), strict=True)
        ):
            path = root / name / f"class_{label}" / f"{row:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(pixels).save(path)
    return root


def rows_of(split, **kind):
    """Rows of a parquet export: the columns img {bytes, path}, label, half."""
    images, labels = pictures(split, **kind)
    return [
        {
            "img": {"bytes": png(pixels), "path": f"{row}.png"},
            "label": int(label),
            "half": int(label) // 5,
        }
        for row, (pixels, label) in enumerate(zip(images, labels, strict=True))
    ]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_parquet(
    root, pattern="{split}-{shard:05}-of-00002.parquet", shards=2, **kind
):
    """Both splits in files named by the pattern; the folder."""
    for split in ITEMS:
        rows = rows_of(split, **kind)
        each = len(rows) // shards
        for shard in range(shards):
            path = root / pattern.format(split=split, shard=shard)
            write_rows(path, rows[shard * each : (shard + 1) * each])
    return root


def write_pickles(root):
    """CIFAR-10's own batches; the data folder that holds them."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for split, names in (
        ("train", [f"data_batch_{number}" for number in range(1, 6)]),
        ("test", ["test_batch"]),
    ):
        images, labels = pictures(split)
        for name, rows in zip(
            names, np.array_split(np.arange(len(images)), len(names)), strict=True
        ):
            batch = {"data": images[rows].reshape(len(rows), -1)}
            batch["labels"] = labels[rows].tolist()
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return root


def write_idx(path, values):
    shape = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shape + values.astype(np.uint8).tobytes())


def write_mnist(root, name="FashionMNIST"):
    for split, word in (("train", "train"), ("test", "t10k")):
        images, labels = pictures(split, channels=1, size=28)
        write_idx(root / name / "raw" / f"{word}-images-idx3-ubyte", images[:, 0])
        write_idx(root / name / "raw" / f"{word}-labels-idx1-ubyte", labels)
    return root


def write_svhn(root):
    for split in ("train", "test"):
        images, labels = pictures(split)
        content = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels, labels, 10)}
        scipy.io.savemat(root / f"{split}_32x32.mat", content)
    return root


def write_stl10(root):
    (root / "stl10_binary").mkdir()
    for split in ("train", "test"):
        images, labels = pictures(split, size=96)
        images.transpose(0, 1, 3, 2).tofile(root / "stl10_binary" / f"{split}_X.bin")
        (labels + 1).astype(np.uint8).tofile(root / "stl10_binary" / f"{split}_y.bin")
    return root


def write_tiny(root):
    """Tiny-ImageNet's folders with ten classes; every fifth image is grey."""
    for split, name in (("train", "train"), ("test", "val")):
        lines = []
        for row, (pixels, label) in enumerate(
            zip(*pictures(split, size=64), strict=True)
        ):
            wnid = f"n0000000{label}"
            above = root / name / (wnid if split == "train" else ".")
            inner = above / "images"
            inner.mkdir(parents=True, exist_ok=True)
            mode = "L" if row % 5 == 0 else "RGB"
            image = PIL.Image.fromarray(pixels.transpose(1, 2, 0)).convert(mode)
            image.save(inner / f"{name}_{row:02}.png")
            lines.append(f"{name}_{row:02}.png\t{wnid}\t0\t0\t62\t62\n")
        if split == "test":
            (root / name / "val_annotations.txt").write_text("".join(reversed(lines)))
    return root


@pytest.fixture(scope="session")
def write():
    """Functions of this file, for test modules (which cannot import it)."""
    return {
        "tree": write_tree,
        "parquet": write_parquet,
        "pickles": write_pickles,
        "mnist": write_mnist,
        "svhn": write_svhn,
        "stl10": write_stl10,
        "tiny": write_tiny,
        "rows": write_rows,
        "rows_of": rows_of,
        "pictures": pictures,
        "png": png,
    }


@pytest.fixture(scope="session")
def read():
    """Load a known set of which only a few images were written."""

    def read(data_dir, image_set=known.CIFAR10, download=False, **changes):
        items = tuple(ITEMS.values())
        small = dataclasses.replace(image_set, **{"items": items, **changes})
        return known.load(data_dir, download, known=small)

    return read


@pytest.fixture(scope="session")
def refused():
    """Call a loader that must raise a UserError with these words."""

    def refused(call, *words, **arguments):
        with pytest.raises(UserError) as caught:
            call(**arguments)
        for word in words:
            assert word in str(caught.value)

    return refused
