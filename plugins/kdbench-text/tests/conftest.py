"""The fixtures of strategy tests, texts in either layout, and the real files."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kdbench.testing import assert_same, assert_trains, given

__all__ = ["assert_same", "assert_trains", "given"]

TRAIN = [
    ("a fine film , warm and funny", 1),
    ("a dull film , cold and slow", 0),
    ("funny , warm , a joy", 1),
    ("slow and dull and cold", 0),
]
TEST = [("a warm joy", 1), ("cold", 0), ("a film", 1)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data files, or a skip that says where they were looked for."""
    folder = Path(
        os.environ.get("KDBENCH_DATA")
        or Path(__file__).resolve().parents[4] / "shared" / "data"
    )
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set KDBENCH_DATA to its folder")
    return folder


@pytest.fixture
def write(tmp_path):
    """Write rows as sst2/<part>-0000K-of-0000N.parquet; the file's path."""

    def write(part, rows, shard="00000-of-00001", **columns):
        folder = tmp_path / "sst2"
        folder.mkdir(exist_ok=True)
        table = {
            "idx": list(range(len(rows))),
            "sentence": [row[0] for row in rows],
            "label": [row[1] for row in rows],
            **columns,
        }
        path = folder / f"{part}-{shard}.parquet"
        pq.write_table(pa.table(table), path)
        return path

    return write


@pytest.fixture
def small(write, tmp_path):
    """A whole small dataset in parquet; its data folder."""
    write("train", TRAIN)
    write("test", TEST)
    write("validation", TEST[:2])
    return tmp_path


@pytest.fixture
def glue(tmp_path):
    """The same in GLUE's layout; its data folder."""
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for name, rows in (("train", TRAIN), ("dev", TEST)):
        lines = [f"{text} \t{label}\n" for text, label in rows]
        text = "".join(["sentence\tlabel\n", *lines])
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    return tmp_path
