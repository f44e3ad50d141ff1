"""Fixtures: small recordings in both layouts, and the real data."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

RATE = 8000
SPEAKERS = ("george", "theo")
TAKES = range(3, 7)  # two of them are the test set's

Rows = list[dict[str, object]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
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


def tone(digit: int, speaker: str, take: int) -> np.ndarray:
    """(T,) float32: a pitch for each digit, detuned by speaker, with some noise."""
    rng = np.random.default_rng([digit, take, len(speaker)])
    time = np.arange(2000 + 300 * take) / RATE
    pitch = 300 * 1.25**digit * (1.03 if speaker == "theo" else 1.0)
    wave = 0.5 * np.sin(2 * np.pi * pitch * time) + 0.01 * rng.normal(size=len(time))
    return wave.astype(np.float32)


def encoded(wave: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    """A WAV file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, subtype=subtype, format="WAV")
    return file.getvalue()


def tones() -> Rows:
    """Every digit, speaker and take; `name` and `test` are not columns."""
    return [
        {
            "audio": {
                "bytes": encoded(tone(digit, speaker, take)),
                "path": f"{digit}_{speaker}_{take}.wav",
            },
            "label": digit,
            "speaker": speaker,
        }
        for digit in range(10)
        for speaker in SPEAKERS
        for take in TAKES
    ]


def take_of(row: dict) -> int:
    return int(row["audio"]["path"].removesuffix(".wav").split("_")[2])


def write_parquet(folder: Path, rows: Rows, audio: str = "audio") -> Path:
    """`folder`/fsdd/{train,test}-*.parquet, rows in an order of their own."""
    target = folder / "fsdd"
    target.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(rows))
    for split in ("train", "test"):
        chosen = [rows[k] for k in order if (take_of(rows[k]) < 5) == (split == "test")]
        named = [{audio: r["audio"], **{k: r[k] for k in list(r)[1:]}} for r in chosen]
        table = pa.Table.from_pylist(named)
        pq.write_table(table, target / f"{split}-00000-of-00001.parquet")
    return folder


def write_wavs(folder: Path, rows: Rows) -> Path:
    """`folder`/fsdd/recordings/<digit>_<speaker>_<take>.wav."""
    target = folder / "fsdd" / "recordings"
    target.mkdir(parents=True)
    for row in rows:
        (target / row["audio"]["path"]).write_bytes(row["audio"]["bytes"])
    return folder


@pytest.fixture
def rows() -> Rows:
    return tones()


@pytest.fixture(scope="session")
def wavs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in the layout of the dataset's repository."""
    return write_wavs(tmp_path_factory.mktemp("wavs"), tones())


@pytest.fixture(scope="session")
def helpers() -> dict[str, Callable[..., object]]:
    """Functions of this file, for test modules (which cannot import it)."""
    return {"encoded": encoded, "parquet": write_parquet, "wavs": write_wavs}
