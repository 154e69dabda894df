"""Noise of the line taken out of a whole utterance, for a recogniser that was trained without it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_Float = npt.NDArray[np.float64]

_SIZE: Final = 256  # samples in a frame: 32 ms at 8 kHz
_HOP: Final = _SIZE // 4
_QUIETEST: Final = 20  # percentile of the power in a bin that is taken for noise
_BIAS: Final = 1.5  # by which that percentile is below the mean of the noise
_AVERAGED: Final = 8  # frames, before the percentile
_BINS: Final = 5  # smoothed over, because noise has no fine lines
_MEMORY: Final = 0.92
_LOWEST_SNR: Final = 10**-2.5
_HIGHEST_SNR: Final = 1e4
_FLOOR: Final = 0.15  # smallest gain: what is below leaves tones that are heard as speech


def denoise(samples: _Float) -> _Float:
    """Return ``samples`` (one utterance at 8 kHz, int16 units) without its steady noise; same length.

    A Wiener filter by the decision-directed rule of Ephraim and Malah (IEEE Trans. ASSP 32, 1984, section V),
    with the noise taken from the quietest frames of each frequency.
    """
    size = len(samples)
    frames = -(-(size + 2 * _SIZE) // _HOP)
    padded = np.zeros(frames * _HOP + _SIZE)
    padded[_SIZE : _SIZE + size] = samples
    window = np.sqrt(np.hanning(_SIZE + 1)[:_SIZE])
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, _SIZE)[::_HOP][:frames] * window)
    power = np.abs(spectrum) ** 2
    spectrum *= _gains(power, _noise(power[_SIZE // _HOP : (_SIZE + size) // _HOP]))
    pieces = np.fft.irfft(spectrum, _SIZE) * window
    result = np.zeros_like(padded)
    for number, piece in enumerate(pieces):
        result[number * _HOP : number * _HOP + _SIZE] += piece
    return result[_SIZE : _SIZE + size] / (_SIZE / _HOP / 2)


def _noise(power: _Float) -> _Float:
    averaged = min(_AVERAGED, len(power))
    total = np.cumsum(np.vstack([np.zeros_like(power[:1]), power]), axis=0)
    smooth = (total[averaged:] - total[:-averaged]) / averaged
    quiet = np.percentile(smooth, _QUIETEST, axis=0) * _BIAS + 1.0
    return np.convolve(np.pad(quiet, _BINS // 2, mode="edge"), np.full(_BINS, 1 / _BINS), "valid")


def _gains(power: _Float, noise: _Float) -> _Float:
    posterior = np.minimum(power / noise, _HIGHEST_SNR)
    gains = np.empty_like(power)
    before = np.zeros_like(noise)
    for number, snr in enumerate(posterior):
        prior = np.maximum(_MEMORY * before + (1 - _MEMORY) * np.maximum(snr - 1, 0), _LOWEST_SNR)
        wiener = prior / (1 + prior)
        gains[number] = np.maximum(wiener, _FLOOR)
        before = wiener**2 * snr
    return gains
