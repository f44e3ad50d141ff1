"""log-mel: HTK's filters from the formula, power from Parseval, sines in their band."""

from __future__ import annotations

import math

import pytest
import torch
from kdbench_audio.logmel import (
    MelSettings,
    filter_bank,
    fixed_length,
    log_mel,
    mel,
    power,
)

SETTINGS = MelSettings()


def loop_bank(s: MelSettings) -> list[list[float]]:
    """Triangles drawn edge by edge, in Python's float64."""

    def to_mel(f):
        return 2595 * math.log10(1 + f / 700)

    lo, hi = to_mel(s.low), to_mel(s.high)
    edges = [lo + (hi - lo) * j / (s.mels + 1) for j in range(s.mels + 2)]
    bank = []
    for m in range(s.mels):
        left, centre, right = edges[m : m + 3]
        row = []
        for k in range(s.window // 2 + 1):
            x = to_mel(k * s.rate / s.window)
            if left < x <= centre:
                row.append((x - left) / (centre - left))
            elif centre < x < right:
                row.append((right - x) / (right - centre))
            else:
                row.append(0.0)
        bank.append(row)
    return bank


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        MelSettings(window=200, hop=80, mels=23, low=0.0),
        MelSettings(rate=16000, window=512, mels=64, high=7600.0),
    ],
    ids=lambda s: f"{s.rate}-{s.mels}",
)
def test_filters_match_the_formula(settings):
    expected = torch.tensor(loop_bank(settings), dtype=torch.float64)
    torch.testing.assert_close(
        filter_bank(settings).double(), expected, rtol=0, atol=1e-6
    )


def test_a_thousand_hertz_is_a_thousand_mel():
    assert mel(torch.tensor(1000.0)).item() == pytest.approx(1000, abs=0.1)


def test_neighbouring_filters_add_up_to_one():
    bank = filter_bank(SETTINGS)
    centres = bank.argmax(1)
    inside = bank.sum(0)[centres[0] + 1 : centres[-1]]
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_power_obeys_parseval():
    """sum |X|^2 over all bins of a window = window length * energy of the window."""
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 2000, generator=generator, dtype=torch.float64)
    spectrum = power(wave, SETTINGS)[0]
    twice = torch.full((SETTINGS.window // 2 + 1, 1), 2.0, dtype=torch.float64)
    twice[0] = twice[-1] = 1
    hann = torch.tensor(
        [
            0.5 - 0.5 * math.cos(2 * math.pi * n / SETTINGS.window)
            for n in range(SETTINGS.window)
        ],
        dtype=torch.float64,
    )
    for frame in range(spectrum.shape[1]):
        start = frame * SETTINGS.hop
        part = wave[0, start : start + SETTINGS.window] * hann
        expected = SETTINGS.window * part.square().sum()
        torch.testing.assert_close((twice[:, 0] * spectrum[:, frame]).sum(), expected)


@pytest.mark.parametrize("band", [3, 10, 20, 30, 38])
def test_a_sine_is_loudest_in_its_band(band):
    ends = mel(torch.tensor([SETTINGS.low, SETTINGS.high])).tolist()
    centre = ends[0] + (ends[1] - ends[0]) * (band + 1) / (SETTINGS.mels + 1)
    frequency = 700 * (10 ** (centre / 2595) - 1)
    time = torch.arange(SETTINGS.samples) / SETTINGS.rate
    wave = torch.sin(2 * math.pi * frequency * time)
    features = log_mel(wave[None], SETTINGS)[0, 0]
    assert (features.argmax(0) == band).all()
    far = [m for m in range(SETTINGS.mels) if abs(m - band) > 5]
    assert features[band].min() > features[far].max() + math.log(100)


def test_level_of_a_full_scale_sine():
    """At a bin's frequency the power is (sum of the window / 2)^2 = (window / 4)^2."""
    time = torch.arange(SETTINGS.samples, dtype=torch.float64) / SETTINGS.rate
    wave = torch.sin(2 * math.pi * 1000 * time)  # bin 32
    top = power(wave[None], SETTINGS)[0].max(0).values
    torch.testing.assert_close(top, torch.full_like(top, 64.0**2))


def test_silence_is_zero_and_noise_is_finite():
    silent = log_mel(torch.zeros(2, SETTINGS.samples), SETTINGS)
    assert silent.shape == (2, 1, SETTINGS.mels, SETTINGS.frames) == (2, 1, 40, 61)
    assert silent.dtype == torch.float32
    assert silent.count_nonzero() == 0
    loud = log_mel(torch.ones(1, SETTINGS.samples) * 1e6, SETTINGS)
    assert torch.isfinite(loud).all()


def test_is_the_logarithm_above_the_floor():
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, SETTINGS.samples, generator=generator)
    bands = filter_bank(SETTINGS) @ power(wave, SETTINGS)
    expected = (bands + SETTINGS.floor).log() - math.log(SETTINGS.floor)
    torch.testing.assert_close(log_mel(wave, SETTINGS)[:, 0], expected)


def test_clips_are_cut_or_end_in_silence():
    wave = torch.arange(1.0, 10_001.0)
    assert fixed_length(wave, SETTINGS).tolist() == wave[:8000].tolist()
    short = fixed_length(wave[:5], SETTINGS)
    assert short[:6].tolist() == [1, 2, 3, 4, 5, 0]
    assert len(short) == 8000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mels": 100}, "hold no frequency bin"),
        ({"high": 5000.0}, "do not fit a rate of 8000 Hz"),
        ({"low": 4000.0}, "do not fit"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        filter_bank(MelSettings(**changes))
