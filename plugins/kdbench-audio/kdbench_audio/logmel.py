"""Log-mel features of short clips, by `torch.stft`.

The scale is HTK's: mel(f) = 2595 log10(1 + f / 700), f in Hz, and so are the filters:
triangles of height 1, equally spaced and straight in mel (Young et al., The HTK Book,
version 3.4, section 5.4, equation 5.13). Filters of Slaney's scale and area are
different ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MelSettings:
    """How waveforms become features. The defaults suit short words at 8 kHz.

    A window of 32 ms every 16 ms, 40 bands: the resolution that keyword spotters use
    (Zhang et al. 2017, arXiv:1711.07128: 40 ms every 20 ms; Tang & Lin 2018,
    arXiv:1710.10361: 30 ms every 10 ms; both at 16 kHz).
    """

    rate: int = 8000  # Hz
    seconds: float = 1.0  # longer clips are cut, shorter ones end in silence
    window: int = 256  # samples
    hop: int = 128  # samples
    mels: int = 40  # bands
    low: float = 20.0  # Hz
    high: float = 4000.0  # Hz, at most half the rate
    floor: float = 1e-4  # power; a full-scale sine has (window / 4)^2

    @property
    def samples(self) -> int:
        """Length of a clip."""
        return round(self.rate * self.seconds)

    @property
    def frames(self) -> int:
        """Windows that lie wholly inside a clip."""
        return 1 + (self.samples - self.window) // self.hop


def mel(frequency: Tensor) -> Tensor:
    """Hz -> mel."""
    return 2595 * torch.log10(1 + frequency / 700)


@cache
def filter_bank(settings: MelSettings) -> Tensor:
    """(mels, window // 2 + 1) float32 weights of the power in each frequency bin.

    w[m, k] = max(0, 1 - |mel(f_k) - c_m| / d), with f_k = k * rate / window,
    d = (mel(high) - mel(low)) / (mels + 1) and c_m = mel(low) + (m + 1) d.

    Raises ValueError where a band holds no bin, or the band limits are impossible.
    """
    if not 0 <= settings.low < settings.high <= settings.rate / 2:
        raise ValueError(
            f"bands from {settings.low:g} to {settings.high:g} Hz do not fit a rate of "
            f"{settings.rate} Hz"
        )
    bins = torch.arange(settings.window // 2 + 1, dtype=torch.float64)
    ends = mel(torch.tensor([settings.low, settings.high], dtype=torch.float64))
    step = (ends[1] - ends[0]) / (settings.mels + 1)
    centres = ends[0] + step * torch.arange(1, settings.mels + 1)
    distance = mel(bins * settings.rate / settings.window) - centres[:, None]
    weights = (1 - distance.abs() / step).clamp(min=0)
    empty = (weights.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"mel bands {empty} hold no frequency bin: fewer mels or a longer window"
        )
    return weights.float()


def power(waves: Tensor, settings: MelSettings) -> Tensor:
    """|STFT|^2 with a periodic Hann window and no padding.

    (N, samples) -> (N, window // 2 + 1, frames).
    """
    spectrum = torch.stft(
        waves,
        n_fft=settings.window,
        hop_length=settings.hop,
        window=torch.hann_window(settings.window, dtype=waves.dtype),
        center=False,
        return_complex=True,
    )
    return spectrum.abs().square()


def log_mel(waves: Tensor, settings: MelSettings) -> Tensor:
    """log(1 + mel power / floor): (N, samples) -> (N, 1, mels, frames) float32.

    It is log(mel power + floor) moved so that silence is exactly 0: what a crop is
    padded with is silence too.
    """
    bands = filter_bank(settings) @ power(waves, settings)
    return torch.log1p(bands / settings.floor).unsqueeze(1)


def fixed_length(wave: Tensor, settings: MelSettings) -> Tensor:
    """(T,) -> (samples,): cut at the end, or filled up with silence."""
    kept = wave[: settings.samples]
    return torch.nn.functional.pad(kept, (0, settings.samples - len(kept)))
