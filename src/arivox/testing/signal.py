"""Tones, and the measurements that judge what a caller heard.

Audio is int16, mono, shape (n,). Levels are dBFS as AES17 defines them: a full-scale sine reads 0 dB.
Times are milliseconds from the first sample.

Two pieces of a tone fit together without a seam when the audio lost between them is a whole number of its
periods. Probe with a frequency of ``PROBES_HZ``: a packet of 10, 20, 30, 40 or 60 ms lost or repeated then
shifts the phase by 40 degrees or more.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from arivox.audio.g711 import Pcm

FULL_SCALE: Final = 32767.0
FLOOR_DB: Final = -120.0
# Each is 13 Hz above a multiple of 50 Hz: 20 ms is 0.26 of a period more than a whole number of periods.
PROBES_HZ: Final[tuple[float, ...]] = tuple(float(f) for f in range(413, 3200, 100))
_PHASE_JUMP_RAD: Final = np.radians(20.0)


def amplitude(level_dbfs: float) -> float:
    """Return the peak of a sine of ``level_dbfs``, in int16 steps."""
    return float(FULL_SCALE * 10 ** (level_dbfs / 20))


def silence(seconds: float, rate: int = 8000) -> Pcm:
    """Return digital silence."""
    return np.zeros(round(seconds * rate), np.int16)


def tone(freq_hz: float, seconds: float, rate: int = 8000, level_dbfs: float = -12.0) -> Pcm:
    """Return a sine that starts at phase zero."""
    n = np.arange(round(seconds * rate))
    wave: Pcm = np.rint(np.sin(2 * np.pi * freq_hz / rate * n) * amplitude(level_dbfs)).astype(np.int16)
    return wave


def speech_like(seconds: float, rate: int = 8000, level_dbfs: float = -15.0, seed: int = 1) -> Pcm:
    """Return a voiced sound in syllables: 4 a second, pitch near 120 Hz, one moving formant."""
    random = np.random.default_rng(seed)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formant = 600 + 250 * np.sin(2 * np.pi * 1.3 * t)
    voice = np.zeros(n)
    for harmonic in range(1, 25):
        voice += np.exp(-(((pitch * harmonic - formant) / 500) ** 2)) * np.sin(harmonic * phase)
    voice += 0.05 * random.standard_normal(n)
    voice *= np.clip(np.sin(2 * np.pi * 4 * t) + 0.3, 0, 1)
    peak = float(np.max(np.abs(voice), initial=1e-9))
    return np.rint(voice / peak * amplitude(level_dbfs)).astype(np.int16)


def level_dbfs(pcm: Pcm) -> float:
    """Return the RMS level; FLOOR_DB for digital silence or nothing."""
    if not len(pcm):
        return FLOOR_DB
    power = float(np.mean(np.square(pcm, dtype=np.float64)))
    return max(FLOOR_DB, _decibels(2 * power / FULL_SCALE**2))


def dominant_frequency(pcm: Pcm, rate: int = 8000) -> float:
    """Return the strongest frequency in Hz (to a small part of a bin), 0.0 for silence."""
    if len(pcm) < 8 or not pcm.any():
        return 0.0
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    peak = int(np.argmax(spectrum[1:-1])) + 1
    left, centre, right = np.log(spectrum[peak - 1 : peak + 2] + 1e-9)
    curvature = left - 2 * centre + right
    offset = 0.5 * (left - right) / curvature if curvature else 0.0
    return float((peak + offset) * rate / len(pcm))


def tone_level_db(pcm: Pcm, freq: float, rate: int = 8000) -> float:
    """Return the level in dBFS of the component at ``freq``, through a Hann window; at least FLOOR_DB."""
    if not len(pcm):
        return FLOOR_DB
    window = np.hanning(len(pcm) + 2)[1:-1]
    carrier = np.exp(-2j * np.pi * freq / rate * np.arange(len(pcm)))
    peak = 2 * abs(np.sum(pcm * window * carrier)) / window.sum()
    return max(FLOOR_DB, _decibels((peak / FULL_SCALE) ** 2))


def snr_db(pcm: Pcm, freq: float, rate: int = 8000) -> float:
    """Return the power of the tone at ``freq`` over the power of all else, in dB.

    One sine is fitted to the whole of ``pcm``: noise, other tones, gaps and seams all count against it.
    """
    if len(pcm) < 8:
        return FLOOR_DB
    angle = 2 * np.pi * freq / rate * np.arange(len(pcm))
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    samples = pcm.astype(np.float64)
    fit, *_ = np.linalg.lstsq(basis, samples, rcond=None)
    wanted = basis @ fit
    return _decibels(float(np.sum(wanted**2)) / max(float(np.sum((samples - wanted) ** 2)), 1e-9))


def dropouts(pcm: Pcm, freq: float, rate: int = 8000, min_ms: float = 5.0) -> list[tuple[float, float]]:
    """Return the faults in a continuous tone as (start_ms, length_ms), in order of time.

    A stretch of ``min_ms`` or more below half the tone's amplitude has its length. A place where the phase
    jumps by more than 20 degrees has length 0.0: there a piece is missing or repeated, and a tone cannot tell
    how much. A tone that is not there at all is one dropout of the whole length.
    """
    half_period = rate / (2 * freq)
    # Whole half periods cancel the image at twice the frequency.
    window = max(2, round(math.ceil(min_ms * rate / 1000 / half_period) * half_period))
    if len(pcm) < 3 * window:
        raise ValueError(f"{len(pcm)} samples are too few to look for dropouts of {min_ms} ms")
    carrier = np.exp(-2j * np.pi * freq / rate * np.arange(len(pcm)))
    baseband = _moving_mean(pcm * carrier, window)  # [i] is the mean of samples i .. i + window - 1
    strength = np.abs(baseband)
    reference = float(np.quantile(strength, 0.9))
    whole_ms = len(pcm) * 1000 / rate
    if 2 * reference < amplitude(-60.0):
        return [(0.0, whole_ms)]

    def ms(index: int) -> float:  # of the middle of a window
        return float((index + window / 2) * 1000 / rate)

    lost = [
        (0.0 if first == 0 else ms(first), whole_ms if last == len(strength) else ms(last))
        for first, last in _runs(strength < reference / 2)
    ]
    silent = [(start, end - start) for start, end in lost if end - start >= 0.8 * min_ms]
    seams = []
    # Two windows that touch but do not overlap turn against each other by the full angle of a seam between
    # them. Where the angle is near 180 degrees the windows across it cancel out and split the run in two.
    turned = np.abs(np.angle(baseband[window:] * np.conj(baseband[:-window]))) > _PHASE_JUMP_RAD
    reach = 1.5 * window * 1000 / rate
    for first, last in _joined(_runs(turned), window // 2):
        seam = ((first + last) / 2 + window) * 1000 / rate
        if not any(start - reach <= seam <= start + length + reach for start, length in silent):
            seams.append((seam, 0.0))
    return sorted(silent + seams)


def active_segments(
    pcm: Pcm, rate: int = 8000, threshold_db: float = -40.0, min_ms: float = 20.0
) -> list[tuple[float, float]]:
    """Return the sounding stretches as (start_ms, end_ms).

    A stretch runs from the first to the last sample whose size is above the peak of a sine of
    ``threshold_db``; pauses under ``min_ms`` do not end it, and stretches under ``min_ms`` are dropped.
    """
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > amplitude(threshold_db))
    if not len(loud):
        return []
    least = min_ms * rate / 1000
    breaks = np.flatnonzero(np.diff(loud) > least)
    firsts = loud[np.concatenate(([0], breaks + 1))]
    lasts = loud[np.concatenate((breaks, [len(loud) - 1]))] + 1
    return [
        (float(first) * 1000 / rate, float(last) * 1000 / rate)
        for first, last in zip(firsts, lasts, strict=True)
        if last - first >= least
    ]


def onset_ms(pcm: Pcm, rate: int = 8000, threshold_db: float = -40.0) -> float | None:
    """Return where sound starts (see ``active_segments``), or None."""
    segments = active_segments(pcm, rate, threshold_db)
    return segments[0][0] if segments else None


def _decibels(power: float) -> float:
    return max(FLOOR_DB, float(10 * np.log10(max(power, 1e-12))))


def _moving_mean(values: npt.NDArray[np.complex128], window: int) -> npt.NDArray[np.complex128]:
    total = np.concatenate((np.zeros(1, np.complex128), np.cumsum(values)))
    return (total[window:] - total[:-window]) / window


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the runs of True as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def _joined(runs: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Return ``runs`` with those made one that are ``gap`` or less apart."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined
