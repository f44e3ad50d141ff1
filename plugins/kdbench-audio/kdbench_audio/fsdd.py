"""Free Spoken Digit Dataset: ten digits by six speakers, 50 takes each, 8 kHz.

Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0).
Takes 0 to 4 of each digit and speaker are the test set of the given split.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import torch

from kdbench import Data, Dataset, Split, Task, UserError
from kdbench_audio.clips import Clip, waveforms
from kdbench_audio.logmel import MelSettings, log_mel
from kdbench_audio.tables import read_tables

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SETTINGS = MelSettings()
CLASSES = 10
TEST_TAKES = 5
RECORDING = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
CHUNK = 500
"""Clips transformed at once: bounds the memory that the spectra take."""


def load(data_dir: Path | None, download: bool, without: str = "") -> Data:  # noqa: ARG001 - there is no downloader
    """Read `<data_dir>/fsdd`. Inputs are (N, 1, mels, frames) float32, log-mel.

    `without` names a speaker: train on all takes of the others, test on all of theirs.
    Items come in the order of the recordings' names, whatever the layout; the notes
    count what had to be resampled.

    Raises UserError where files are missing, unreadable, or hold no such speaker.
    """
    clips = read(data_dir)
    if without:
        held_out = [clip.speaker == without for clip in clips]
    else:
        held_out = [clip.test for clip in clips]
    if all(held_out) or not any(held_out):
        speakers = ", ".join(sorted({clip.speaker for clip in clips}))
        what = f"no recording of {without!r}" if without else "no training or no test"
        raise UserError(
            f"dataset 'fsdd' in {data_dir}: {what} recordings to tell apart; "
            f"{len(clips)} recordings, of {speakers}; complete the folder"
        )
    waves, notes = waveforms(clips, SETTINGS)
    features = torch.cat(
        [log_mel(part, SETTINGS) for part in torch.split(waves, CHUNK)]
    )
    labels = torch.tensor([clip.label for clip in clips])
    test = torch.tensor(held_out)
    known = features[~test].double()
    return Data(
        train=Split(inputs=features[~test], targets=labels[~test]),
        test=Split(inputs=features[test], targets=labels[test]),
        mean=(known.mean().item(),),
        std=(known.std(correction=0).item(),),
        notes=notes,
    )


def read(data_dir: Path | None) -> list[Clip]:
    """All recordings, by name; from the tables where there are both layouts.

    Raises UserError where there is neither, or a name occurs twice.
    """
    layouts = (
        "expected fsdd/train-*.parquet and fsdd/test-*.parquet (columns audio {bytes, "
        "path}, label, speaker),\n  or the repository's "
        "fsdd/recordings/<digit>_<speaker>_<take>.wav"
    )
    if data_dir is None:
        raise UserError(
            "dataset 'fsdd' needs files: name the folder that holds fsdd/ with "
            f"--data-dir DIR or KDBENCH_DATA\n  {layouts}"
        )
    folder = data_dir / "fsdd"
    clips = read_tables(folder, CLASSES) or _read_recordings(folder / "recordings")
    if not clips:
        raise UserError(
            f"dataset 'fsdd' not found in {data_dir} (--data-dir or KDBENCH_DATA)\n"
            f"  {layouts}"
        )
    return _ordered(clips)


def _ordered(clips: list[Clip]) -> list[Clip]:
    """By name, so that both layouts give one order; nameless ones as they came."""
    named: dict[str, Clip] = {}
    for clip in clips:
        if clip.name in named:
            raise UserError(
                f"{clip.where}: {clip.name!r} is there twice, first as "
                f"{named[clip.name].where}; remove one"
            )
        if clip.name:
            named[clip.name] = clip
    if len(named) < len(clips):
        return clips
    return [named[name] for name in sorted(named)]


def _read_recordings(folder: Path) -> list[Clip]:
    clips = []
    for path in sorted(folder.glob("*.wav")):
        match = RECORDING.fullmatch(path.name)
        if not match:
            raise UserError(
                f"{path}: recordings are named <digit>_<speaker>_<take>.wav; rename or "
                "remove it"
            )
        digit, speaker, take = match.groups()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        clips.append(
            Clip(
                name=path.name,
                where=str(path),
                data=data,
                label=int(digit),
                speaker=speaker,
                test=int(take) < TEST_TAKES,
            )
        )
    return clips


def _dataset(name: str, summary: str, without: str = "") -> Dataset:
    return Dataset(
        name=name,
        summary=summary,
        source="Jackson et al., Free Spoken Digit Dataset (CC BY-SA 4.0)",
        task=Task(outputs=CLASSES, labels=tuple("0123456789")),
        input_shape=(1, SETTINGS.mels, SETTINGS.frames),
        load=partial(load, without=without),
    )


DATASETS = (
    _dataset("fsdd", "2,700 / 300 spoken digits of six speakers, 8 kHz, log-mel"),
    *(
        _dataset(
            f"fsdd-without-{speaker}",
            f"spoken digits: 2,500 of five speakers / 500 of {speaker}, unheard",
            speaker,
        )
        for speaker in SPEAKERS
    ),
)
