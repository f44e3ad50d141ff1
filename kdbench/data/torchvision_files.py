"""The files that torchvision's own dataset classes download, read without them.

Their classes check sums over whole archives at every opening and need torchvision;
here a set is read once, into the decoded cache. Each `find_...(root)` returns where a
set lies in a data folder, or None where none of its files are there.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.api import UserError
from kdbench.data.images import Found, Labels, Part, Pixels

STL10_SHAPE = (3, 96, 96)
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}

Read = Callable[[Path], tuple[Pixels, Mapping[str, Labels]]]
"""File -> its images (N, C, H, W), and its labels by column."""


def find_cifar10(root: Path) -> Found | None:
    names = [f"data_batch_{number}" for number in range(1, 6)]
    return _found(
        root, "cifar-10-batches-py", names, ["test_batch"], _pickle({"label": "labels"})
    )


def find_cifar100(root: Path) -> Found | None:
    columns = {"fine_label": "fine_labels", "coarse_label": "coarse_labels"}
    return _found(root, "cifar-100-python", ["train"], ["test"], _pickle(columns))


def find_idx(root: Path, name: str) -> Found | None:
    """MNIST and what has its layout: `<name>/raw/train-images-idx3-ubyte` and so on."""
    return _found(
        root,
        f"{name}/raw",
        ["train-images-idx3-ubyte"],
        ["t10k-images-idx3-ubyte"],
        _read_idx,
        beside=["train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"],
    )


def find_svhn(root: Path) -> Found | None:
    return _found(root, ".", ["train_32x32.mat"], ["test_32x32.mat"], _read_svhn)


def find_stl10(root: Path) -> Found | None:
    """The 5,000 and 8,000 labelled images; the 100,000 unlabelled ones are not read."""
    return _found(
        root,
        "stl10_binary",
        ["train_X.bin"],
        ["test_X.bin"],
        _read_stl10,
        beside=["train_y.bin", "test_y.bin"],
    )


def _found(
    root: Path,
    folder: str,
    train: Sequence[str],
    test: Sequence[str],
    read: Read,
    beside: Sequence[str] = (),
) -> Found | None:
    """The set whose images are in these files of `root/folder`."""
    paths = {
        split: [root / folder / name for name in names]
        for split, names in (("train", train), ("test", test))
    }
    files = (*paths["train"], *paths["test"], *(root / folder / n for n in beside))
    missing = tuple(file for file in files if not file.is_file())
    if len(missing) == len(files):
        return None
    return Found(
        root=root,
        files=files,
        read=lambda: {s: _part(root, some, read) for s, some in paths.items()},
        missing=missing,
    )


def _part(root: Path, paths: Sequence[Path], read: Read) -> Part:
    pixels, labels, shards = [], [], []
    for path in paths:
        try:
            images, columns = read(path)
        except UserError:
            raise
        except Exception as error:  # a damaged file can fail in many ways
            what = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{path} cannot be read: {what}\n  it may be cut short; fetch it again"
            ) from error
        for name, values in columns.items():
            if len(values) != len(images):
                raise UserError(
                    f"{path}: {len(images)} images and {len(values)} labels ({name}); "
                    "fetch the files again"
                )
        pixels.append(images)
        labels.append(columns)
        shards.append((path.relative_to(root).as_posix(), len(images)))
    return Part(
        pixels=np.concatenate(pixels),
        labels={k: np.concatenate([part[k] for part in labels]) for k in labels[0]},
        shards=tuple(shards),
    )


class _Arrays(pickle.Unpickler):
    """Loads lists, texts and arrays; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in this file")
        return super().find_class(module, name)


def _pickle(columns: Mapping[str, str]) -> Read:
    """CIFAR's batches: rows of 3,072 bytes, channel by channel."""

    def read(path: Path) -> tuple[Pixels, Mapping[str, Labels]]:
        with path.open("rb") as file:
            batch = _Arrays(file, encoding="latin1").load()
        images = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)
        return images, {k: np.asarray(batch[v], np.int64) for k, v in columns.items()}

    return read


def _read_idx(path: Path) -> tuple[Pixels, Mapping[str, Labels]]:
    labels = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    return _idx(path, 3)[:, None], {"label": _idx(labels, 1).astype(np.int64)}


def _idx(path: Path, axes: int) -> Pixels:
    """Big-endian: two zero bytes, type 8 (uint8), the number of axes, their lengths."""
    data = path.read_bytes()
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(data[4:start], ">u4").tolist())
    if data[:4] != bytes([0, 0, 8, axes]) or len(shape) != axes:
        raise UserError(f"{path} is no IDX file of {axes} axes; fetch it again")
    wanted = start + int(np.prod(shape))
    if len(data) != wanted:
        raise UserError(
            f"{path} has {len(data):,} bytes instead of {wanted:,}; fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read_svhn(path: Path) -> tuple[Pixels, Mapping[str, Labels]]:
    from scipy.io import loadmat

    content = loadmat(path)
    labels = content["y"].astype(np.int64).reshape(-1)
    labels[labels == 10] = 0  # the file calls the digit 0 class 10
    return content["X"].transpose(3, 2, 0, 1), {"label": labels}


def _read_stl10(path: Path) -> tuple[Pixels, Mapping[str, Labels]]:
    images = np.fromfile(path, np.uint8)
    one = int(np.prod(STL10_SHAPE))
    if len(images) % one:
        raise UserError(
            f"{path} has {len(images):,} bytes, no multiple of {one:,}; fetch it again"
        )
    labels = np.fromfile(path.with_name(path.name.replace("_X", "_y")), np.uint8)
    columns_first = images.reshape(-1, *STL10_SHAPE)
    return columns_first.transpose(0, 1, 3, 2), {"label": labels.astype(np.int64) - 1}
