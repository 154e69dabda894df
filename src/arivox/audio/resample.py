"""Streaming resampling between 8 kHz and 16 or 24 kHz by linear-phase FIR filters.

Both filters pass 0-3.4 kHz within 0.08 dB and stop 4.6 kHz and above by 82 dB; they delay by 1.38 ms. A whole
block is one matrix product: a Toeplitz matrix of taps times overlapping rows of samples, which numpy hands to
BLAS. The number of samples out is exact for any size of chunk in.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from arivox.audio.g711 import Pcm

# The first half of each filter; the second half mirrors it. Designed with scipy.signal:
#   remez(67, [0, 3400, 4600, 12000], [1, 0], weight=[1 / .01158, 1 / 1e-4], fs=24000)
#   remez(45, [0, 3400, 4600, 8000], [1, 0], weight=[1 / .01158, 1 / 1e-4], fs=16000)
# fmt: off
_HALF_24K = (
    -2.67727634e-04, -9.71640454e-04, -1.83667852e-03, -2.21516835e-03, -1.30971430e-03,
    7.18675950e-04, 2.53173509e-03, 2.29825431e-03, -4.08136435e-04, -3.62780852e-03,
    -4.10365192e-03, -3.93691763e-04, 4.95490121e-03, 6.75135695e-03, 1.94548075e-03,
    -6.39418925e-03, -1.04395773e-02, -4.58827151e-03, 7.85274285e-03, 1.55478013e-02,
    8.89641744e-03, -9.22750870e-03, -2.28651422e-02, -1.60250057e-02, 1.04267261e-02,
    3.44441373e-02, 2.90456178e-02, -1.13568438e-02, -5.74235363e-02, -6.01904109e-02,
    1.19464948e-02, 1.42429365e-01, 2.68883100e-01, 3.21184357e-01,
)
_HALF_16K = (
    -4.74644450e-04, -2.20983252e-03, -3.31642279e-03, -5.05250008e-04, 3.81673227e-03,
    1.72362353e-03, -5.46491204e-03, -3.99886318e-03, 7.47197418e-03, 7.63705807e-03,
    -9.65180856e-03, -1.31096009e-02, 1.18601221e-02, 2.12305828e-02, -1.39477280e-02,
    -3.36726847e-02, 1.57660691e-02, 5.47725201e-02, -1.71785468e-02, -1.00576332e-01,
    1.80754627e-02, 3.16438631e-01, 4.81624853e-01,
)
# fmt: on
_HALVES = {24000: _HALF_24K, 16000: _HALF_16K}
_BLOCK = 20  # samples at 8 kHz in one row of the product: small enough for BLAS's fast path, few rows


def taps(high_rate: int) -> npt.NDArray[np.float64]:
    """Return the low-pass taps used between 8 kHz and ``high_rate`` (16000 or 24000), at ``high_rate``."""
    half = np.array(_HALVES[high_rate])
    return np.concatenate([half, half[-2::-1]])


@lru_cache
def _matrix(source: int, target: int) -> tuple[npt.NDArray[np.float32], int, int]:
    """Return the Toeplitz matrix, and the samples in and out of one block."""
    high = max(source, target)
    factor = high // 8000
    h = taps(high)
    if source < target:
        history = -(-len(h) // factor) - 1
        matrix = np.zeros((_BLOCK + history, _BLOCK * factor))
        for out in range(_BLOCK * factor):
            newest, phase = divmod(out, factor)
            phase_taps = h[phase::factor] * factor
            for k, tap in enumerate(phase_taps):
                matrix[history + newest - k, out] = tap
        return matrix.astype(np.float32), _BLOCK, _BLOCK * factor
    history = len(h) - 1
    matrix = np.zeros((_BLOCK * factor + history, _BLOCK))
    for out in range(_BLOCK):
        for k, tap in enumerate(h):
            matrix[history + out * factor - k, out] = tap
    return matrix.astype(np.float32), _BLOCK * factor, _BLOCK


class Resampler:
    """Converts one stream of int16 samples from ``source`` to ``target`` Hz.

    One of the rates is 8000, the other 16000 or 24000. Keeps its state from chunk to chunk, so a stream cut
    anywhere sounds the same as in one piece.
    """

    __slots__ = ("_factor", "_history", "_in", "_matrix", "_out", "_rest", "source", "target")

    def __init__(self, source: int, target: int) -> None:
        if min(source, target) != 8000 or max(source, target) not in _HALVES:
            raise ValueError(f"no filter between {source} and {target} Hz")
        self.source = source
        self.target = target
        self._factor = source // 8000 if source > target else 1
        self._matrix, self._in, self._out = _matrix(source, target)
        self.reset()

    @property
    def delay_ms(self) -> float:
        """Return the group delay in milliseconds."""
        high = max(self.source, self.target)
        return (2 * len(_HALVES[high]) - 2) / 2 / high * 1000

    def reset(self) -> None:
        """Forget the stream: the next chunk begins a new one."""
        self._history = np.zeros(self._matrix.shape[0] - self._in, np.float32)
        self._rest = np.zeros(0, np.int16)

    def process(self, pcm: Pcm) -> Pcm:
        """Return the resampled chunk: int16, saturated.

        Going up: exactly ``len(pcm) * ratio`` samples. Going down: one for each full group of ``ratio``
        samples since the start of the stream; a rest is kept for the next chunk.
        """
        if self._factor > 1:
            if len(self._rest):
                pcm = np.concatenate([self._rest, pcm])
            usable = len(pcm) - len(pcm) % self._factor
            self._rest = pcm[usable:].copy()
            pcm = pcm[:usable]
        size = len(pcm)
        if not size:
            return np.zeros(0, np.int16)
        rows = -(-size // self._in)
        kept = len(self._history)
        stream = np.zeros(kept + rows * self._in, np.float32)
        stream[:kept] = self._history
        stream[kept : kept + size] = pcm
        self._history = stream[size : size + kept].copy()
        step = stream.strides[0]
        windows: npt.NDArray[np.float32] = np.ndarray(
            (rows, kept + self._in), np.float32, stream, 0, (step * self._in, step)
        )
        # Without the copy the overlapping view falls off the fast path of BLAS.
        result: npt.NDArray[np.float32] = np.dot(np.ascontiguousarray(windows), self._matrix).ravel()
        result = result[: size * self._out // self._in]
        np.rint(result, out=result)
        np.maximum(result, -32768, out=result)
        np.minimum(result, 32767, out=result)
        return result.astype(np.int16)
