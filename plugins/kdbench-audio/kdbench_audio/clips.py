"""Encoded audio -> waveforms of one rate and length."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import UserError
from kdbench_audio.logmel import MelSettings, fixed_length


@dataclass(frozen=True, slots=True)
class Clip:
    """One encoded recording. `where` names its file and row for messages."""

    name: str
    where: str
    data: bytes
    label: int
    speaker: str
    test: bool


def waveforms(
    clips: Sequence[Clip], settings: MelSettings
) -> tuple[Tensor, tuple[str, ...]]:
    """(N, samples) float32 of full scale 1, and a note where some had another rate.

    Raises UserError, naming file and row, for what is no audio, is empty, or holds
    samples that are not finite.
    """
    rates: Counter[int] = Counter()
    waves = []
    for clip in clips:
        wave, rate = _decoded(clip)
        rates[rate] += 1
        if rate != settings.rate:
            wave = _resampled(wave, rate, settings.rate)
        waves.append(fixed_length(wave, settings))
    return torch.stack(waves), _note(rates, settings.rate)


def _note(rates: Counter[int], wanted: int) -> tuple[str, ...]:
    odd = {rate: rates[rate] for rate in sorted(rates) if rate != wanted}
    if not odd:
        return ()
    counts = ", ".join(f"{count} at {rate} Hz" for rate, count in odd.items())
    return (
        f"{sum(odd.values())} of {rates.total()} recordings were resampled to "
        f"{wanted} Hz: {counts}",
    )


def _decoded(clip: Clip) -> tuple[Tensor, int]:
    """(T,) samples, the mean of the channels, and their rate in Hz."""
    import soundfile

    try:
        samples, rate = soundfile.read(
            io.BytesIO(clip.data), dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        size = f"{len(clip.data)} bytes"
        raise UserError(
            f"{clip.where}: no audio that can be read ({size}): {error}; restore or "
            "remove it"
        ) from error
    wave = torch.from_numpy(samples).mean(1)  # (T, channels) -> (T,)
    if not len(wave):
        raise UserError(f"{clip.where}: the audio is empty; restore or remove it")
    if not torch.isfinite(wave).all():
        raise UserError(
            f"{clip.where}: holds samples that are not finite; restore or remove it"
        )
    return wave, int(rate)


def _resampled(wave: Tensor, rate: int, wanted: int) -> Tensor:
    """(T,) at another rate, by a polyphase filter."""
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    samples = resample_poly(wave.double().numpy(), wanted // common, rate // common)
    return torch.from_numpy(samples).float()
