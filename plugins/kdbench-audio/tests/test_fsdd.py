"""The spoken digits: layouts, splits, resampling, and what is refused."""

from __future__ import annotations

import io
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from kdbench_audio import kdbench_datasets
from kdbench_audio.fsdd import SETTINGS, SPEAKERS, load, read
from kdbench_audio.logmel import log_mel

from kdbench import UserError

DATASETS = {dataset.name: dataset for dataset in kdbench_datasets()}


def same(a, b) -> bool:
    return all(
        torch.equal(getattr(a, part).inputs, getattr(b, part).inputs)
        and torch.equal(getattr(a, part).targets, getattr(b, part).targets)
        for part in ("train", "test")
    ) and (a.mean, a.std) == (b.mean, b.std)


def test_names():
    assert list(DATASETS) == ["fsdd", *(f"fsdd-without-{s}" for s in SPEAKERS)]


def test_both_layouts_give_the_same_tensors(helpers, rows, wavs, tmp_path):
    tables = helpers["parquet"](tmp_path, rows)
    for dataset in (DATASETS["fsdd"], DATASETS["fsdd-without-theo"]):
        assert same(dataset.load(tables, False), dataset.load(wavs, False))


def test_the_audio_column_is_found_by_its_type(helpers, rows, wavs, tmp_path):
    tables = helpers["parquet"](tmp_path, rows, audio="recording")
    assert same(load(tables, False), load(wavs, False))


def test_rows_without_names_keep_their_order(helpers, rows, tmp_path):
    folder = helpers["parquet"](tmp_path, rows) / "fsdd"
    labels = {}
    for path in folder.iterdir():
        table = pq.read_table(path).to_pylist()
        for row in table:
            row["audio"]["path"] = None
        labels[path.name[:4]] = [row["label"] for row in table]
        pq.write_table(pa.Table.from_pylist(table), path)
    data = load(tmp_path, False)
    assert data.train.targets.tolist() == labels["trai"]
    assert data.test.targets.tolist() == labels["test"]


def test_given_split_holds_out_takes_zero_to_four(wavs):
    data = load(wavs, False)
    assert data.train.inputs.shape == (40, 1, 40, 61)
    assert data.test.inputs.shape == (40, 1, 40, 61)
    for split in (data.train, data.test):
        assert split.inputs.dtype == torch.float32
        assert torch.bincount(split.targets).tolist() == [4] * 10
    test_waves = torch.stack([length_of(x) for x in data.test.inputs])
    train_waves = torch.stack([length_of(x) for x in data.train.inputs])
    # a take's length tells its number: 2000 + 300 * take samples
    assert test_waves.max() < train_waves.min()


def length_of(features: torch.Tensor) -> torch.Tensor:
    """Frames that are not silent."""
    return (features.sum((0, 1)) > 0).sum()


def test_a_speaker_left_out_is_heard_in_no_training_item(wavs):
    george = DATASETS["fsdd-without-theo"].load(wavs, False)
    theo = DATASETS["fsdd-without-george"].load(wavs, False)
    assert len(george.train.targets) == len(george.test.targets) == 40
    assert torch.equal(george.train.inputs, theo.test.inputs)
    assert torch.equal(george.test.inputs, theo.train.inputs)
    assert not torch.equal(george.train.inputs, george.test.inputs)


def test_constants_are_those_of_the_training_split(wavs):
    data = load(wavs, False)
    known = data.train.inputs.double().numpy()
    assert data.mean == (pytest.approx(known.mean()),)
    assert data.std == (pytest.approx(known.std()),)
    assert abs(data.test.inputs.double().mean().item() - data.mean[0]) > 1e-3


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("fsdd", "0_george_3.wav"),
        ("fsdd-without-george", "0_george_3.wav"),
        ("fsdd-without-theo", "0_theo_3.wav"),
    ],
)
def test_inputs_are_the_features_of_the_recordings(wavs, name, first):
    samples, _ = soundfile.read(wavs / "fsdd" / "recordings" / first, dtype="float32")
    wave = torch.zeros(1, 8000)
    wave[0, : len(samples)] = torch.from_numpy(samples)
    expected = log_mel(wave, SETTINGS)[0]
    test = DATASETS[name].load(wavs, False).test
    torch.testing.assert_close(test.inputs[0], expected)


@pytest.mark.parametrize("rate", [16_000, 11_025, 6_000])
def test_other_rates_are_resampled_and_counted(helpers, rows, wavs, tmp_path, rate):
    row = rows[0]
    time = np.arange(int(0.3 * rate)) / rate
    wave = np.sin(2 * np.pi * 1000 * time)
    row["audio"]["bytes"] = helpers["encoded"](wave, rate)
    folder = helpers["wavs"](tmp_path, rows)
    data = load(folder, False)
    assert data.notes == (
        f"1 of 80 recordings were resampled to 8000 Hz: 1 at {rate} Hz",
    )
    features = data.test.inputs[0, 0]
    time = torch.arange(2400) / 8000
    direct = torch.nn.functional.pad(torch.sin(2 * torch.pi * 1000 * time), (0, 5600))
    expected = log_mel(direct[None], SETTINGS)[0, 0]
    inner = slice(1, 16)  # frames that lie inside the sound
    loud = expected[:, inner].argmax(0)
    torch.testing.assert_close(features[:, inner].argmax(0), loud)
    peak = features[:, inner].max(0).values - expected[:, inner].max(0).values
    assert peak.abs().max() < 0.1
    assert length_of(features[None]) == length_of(expected[None])


def test_the_usual_rate_needs_no_note(wavs):
    assert load(wavs, False).notes == ()


def test_stereo_is_averaged(helpers, rows, wavs, tmp_path):
    row = rows[0]
    samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
    both = np.stack([2 * samples - 0.1, np.full_like(samples, 0.1)], axis=1)
    row["audio"]["bytes"] = helpers["encoded"](both, rate, "FLOAT")
    data = load(helpers["wavs"](tmp_path, rows), False)
    expected = load(wavs, False)
    torch.testing.assert_close(data.test.inputs, expected.test.inputs)


BAD_AUDIO = {
    "empty": (lambda enc: enc(np.zeros(0, np.float32)), "the audio is empty"),
    "no bytes": (lambda enc: b"", "no audio"),
    "garbage": (lambda enc: b"RIFF....WAVE, or so", "no audio that can be read"),
    "cut": (lambda enc: enc(np.zeros(100, np.float32))[:30], "no audio that can be"),
    "nan": (
        lambda enc: enc(np.array([0.1, np.nan, 0.2], np.float32), subtype="FLOAT"),
        "not finite",
    ),
    "infinite": (
        lambda enc: enc(np.array([0.1, np.inf, 0.2], np.float32), subtype="FLOAT"),
        "not finite",
    ),
}


@pytest.mark.parametrize("kind", BAD_AUDIO)
def test_bad_audio_is_refused_by_file_and_row(helpers, rows, tmp_path, kind):
    make, message = BAD_AUDIO[kind]
    next(r for r in rows if r["audio"]["path"] == "7_theo_5.wav")["audio"]["bytes"] = (
        make(helpers["encoded"])
    )
    wavs = helpers["wavs"](tmp_path / "wavs", rows)
    with pytest.raises(UserError, match=f"recordings/7_theo_5.wav: .*{message}"):
        load(wavs, False)
    tables = helpers["parquet"](tmp_path / "tables", rows)
    table = pq.read_table(tables / "fsdd" / "train-00000-of-00001.parquet").to_pylist()
    row = [r["audio"]["path"] for r in table].index("7_theo_5.wav")
    where = rf"train-00000-of-00001.parquet, row {row} \(7_theo_5.wav\)"
    with pytest.raises(UserError, match=f"{where}: .*{message}"):
        load(tables, False)


def broken(change):
    """A parquet test file whose rows were changed."""

    def write(folder):
        path = folder / "fsdd" / "test-00000-of-00001.parquet"
        table = pq.read_table(path).to_pylist()
        pq.write_table(pa.Table.from_pylist([change(dict(r)) for r in table]), path)

    return write


def without(column):
    return broken(lambda row: {k: v for k, v in row.items() if k != column})


BAD_TABLES = {
    "label 10": (broken(lambda r: {**r, "label": r["label"] + 1}), "label 10 is not"),
    "no label": (broken(lambda r: {**r, "label": r["label"] or None}), "label None"),
    "no speaker": (broken(lambda r: {**r, "speaker": ""}), "the speaker is missing"),
    "no audio": (broken(lambda r: {**r, "audio": r["audio"]["path"]}), "expected one"),
    "no column": (without("speaker"), "expected one column.*it has audio"),
    "text label": (broken(lambda r: {**r, "label": str(r["label"])}), "integer label"),
    "twice": (broken(lambda r: {**r, "audio": {**r["audio"], "path": "x"}}), "twice"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_bad_tables_are_refused(helpers, rows, tmp_path, kind):
    spoil, message = BAD_TABLES[kind]
    folder = helpers["parquet"](tmp_path, rows)
    spoil(folder)
    with pytest.raises(UserError, match=f"test-00000-of-00001.parquet.*{message}"):
        load(folder, False)


def test_a_damaged_or_missing_parquet_file_is_named(helpers, rows, tmp_path):
    folder = helpers["parquet"](tmp_path, rows)
    test = folder / "fsdd" / "test-00000-of-00001.parquet"
    test.write_bytes(test.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"test-00000-of-00001.parquet cannot be read"):
        load(folder, False)
    test.unlink()
    with pytest.raises(UserError, match=r"no test\*.parquet"):
        load(folder, False)


def test_missing_files_say_what_is_expected_where(tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(UserError, match=r"(?s)--data-dir.*KDBENCH_DATA") as caught:
            load(folder, False)
        for part in ("train-*.parquet", "recordings/<digit>_<speaker>_<take>.wav"):
            assert part in str(caught.value)


def test_a_misnamed_recording_is_refused(wavs, tmp_path):
    folder = shutil.copytree(wavs, tmp_path / "copy")
    (folder / "fsdd" / "recordings" / "hello.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"hello.wav: recordings are named"):
        load(folder, False)


def test_a_speaker_or_split_that_is_not_there(helpers, rows, wavs, tmp_path):
    with pytest.raises(UserError, match=r"'lucas'.*80 recordings, of george, theo"):
        DATASETS["fsdd-without-lucas"].load(wavs, False)
    late = [r for r in rows if not r["audio"]["path"].endswith(("3.wav", "4.wav"))]
    folder = helpers["wavs"](tmp_path, late)
    with pytest.raises(UserError, match="no training or no test"):
        load(folder, False)


@pytest.mark.data
def test_the_real_one_is_the_known_one(data_dir):
    data = DATASETS["fsdd"].load(data_dir, False)
    for split, items, each in ((data.train, 2700, 270), (data.test, 300, 30)):
        assert split.inputs.shape == (items, *DATASETS["fsdd"].input_shape)
        assert torch.isfinite(split.inputs).all()
        assert torch.bincount(split.targets).tolist() == [each] * 10


@pytest.mark.data
def test_fifty_takes_of_each_digit_by_each_speaker(data_dir):
    clips = read(data_dir)
    counts = Counter((clip.label, clip.speaker) for clip in clips)
    assert set(counts) == {(d, s) for d in range(10) for s in SPEAKERS}
    assert set(counts.values()) == {50}
    for clip in clips:
        digit, speaker, take = clip.name.removesuffix(".wav").split("_")
        assert (int(digit), speaker) == (clip.label, clip.speaker)
        assert (int(take) < 5) == clip.test


@pytest.mark.data
@pytest.mark.parametrize("speaker", ["george", "theo"])
def test_a_real_speaker_left_out(data_dir, speaker):
    data = DATASETS[f"fsdd-without-{speaker}"].load(data_dir, False)
    assert torch.bincount(data.train.targets).tolist() == [250] * 10
    assert torch.bincount(data.test.targets).tolist() == [50] * 10


@pytest.mark.data
def test_real_recordings_as_files(data_dir, tmp_path):
    """The repository's layout gives the same tensors as the tables."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for clip in read(data_dir):
        (folder / clip.name).write_bytes(clip.data)
    assert same(load(tmp_path, False), load(data_dir, False))
