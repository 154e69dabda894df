"""Streaming resampling between 8 kHz and 16 or 24 kHz by minimum-phase FIR filters.

Both filters pass 0-3.4 kHz within 0.2 dB and stop 4.6 kHz and above by 84 dB. With minimum phase, speech is
delayed by 0.3 ms in its middle and by 0.8 ms at 3.4 kHz; linear phase would take 1.4 ms and more taps. The
ear does not notice half a millisecond between low and high tones, but a call adds up the delays of both ways.

A chunk is one matrix product: overlapping rows of samples times a Toeplitz matrix of taps, which numpy hands
to BLAS. In a call this runs for 20 ms of sound at a time, long after the last, and what it costs is how many
functions it must fetch from memory again: so it makes do with few, and keeps buffers and views from chunk to
chunk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from arivox.audio.g711 import DECODE_FLOAT, SILENCE, Law, Pcm, Samples, codes_up_to

# Designed with scipy.signal as linear-phase filters for the squared magnitude,
#   remez(2 * n - 1, [0, 3400, 4600, fs / 2], [1, 0], weight=[1 / (2 * p), 2 / s**2], fs=fs)
# with n=54, fs=24000, p=0.029, s=6.3e-5 and n=36, fs=16000, p=0.023, s=6.3e-5, and raised until the squared
# magnitude is nowhere negative; then its minimum-phase factor by the cepstrum (2**18 points).
# fmt: off
_TAPS_24K = (
    1.33797339e-03, 7.93028809e-03, 2.68573011e-02, 6.56382257e-02, 1.25807704e-01,
    1.95884448e-01, 2.49912622e-01, 2.56663412e-01, 1.97793452e-01, 8.46115704e-02,
    -4.00970146e-02, -1.21392729e-01, -1.23928681e-01, -5.56234804e-02, 3.50768695e-02,
    8.94831216e-02, 7.69764582e-02, 1.41340965e-02, -4.96118302e-02, -6.91996363e-02,
    -3.59978799e-02, 1.90961642e-02, 5.23729355e-02, 4.15382064e-02, 4.74234837e-04,
    -3.53931844e-02, -3.90386320e-02, -1.19739640e-02, 2.04193034e-02, 3.19505313e-02,
    1.64911872e-02, -9.85914798e-03, -2.47019252e-02, -1.81201175e-02, 1.26057029e-03,
    1.60054015e-02, 1.51718909e-02, 1.95902575e-03, -1.12236198e-02, -1.41897720e-02,
    -6.61737309e-03, 3.51068155e-03, 7.69169285e-03, 3.56010490e-03, -4.53727771e-03,
    -1.01624044e-02, -9.89354861e-03, -4.98270375e-03, 7.39742119e-04, 4.12937908e-03,
    4.47295036e-03, 3.00420250e-03, 1.33284484e-03, 3.35630742e-04,
)
_TAPS_16K = (
    8.50780323e-03, 5.52874373e-02, 1.72855470e-01, 3.28618845e-01, 3.91275530e-01,
    2.43949894e-01, -3.60518365e-02, -1.97643511e-01, -9.99467570e-02, 9.34457804e-02,
    1.22392396e-01, -1.98187208e-02, -1.04385120e-01, -2.15785992e-02, 7.61960793e-02,
    4.05910386e-02, -4.92086234e-02, -4.57227656e-02, 2.72298622e-02, 4.28826424e-02,
    -1.10495042e-02, -3.59786902e-02, 2.57099355e-04, 2.75646364e-02, 6.02505544e-03,
    -1.92851433e-02, -8.84455245e-03, 1.21673056e-02, 9.34093043e-03, -6.80711985e-03,
    -9.01093228e-03, 3.06202346e-03, 1.13011774e-02, 8.92299760e-03, 3.25479829e-03,
    4.22037343e-04,
)
# fmt: on
_TAPS = {24000: _TAPS_24K, 16000: _TAPS_16K}
_BLOCK = 20  # samples at 8 kHz in one row of the product: small enough for BLAS's fast path, few rows
# Products above a quarter of a million are shared out by OpenBLAS to threads, which then spin for a while:
# that costs many times the work.
_MOST_ROWS = 64
_LOWEST, _HIGHEST = np.float32(-32768), np.float32(32767)


def taps(high_rate: int) -> npt.NDArray[np.float64]:
    """Return the low-pass taps used between 8 kHz and ``high_rate`` (16000 or 24000), at ``high_rate``."""
    return np.array(_TAPS[high_rate])


@lru_cache
def _matrix(source: int, target: int) -> tuple[Samples, int, int]:
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
    """Converts one stream of samples from ``source`` to ``target`` Hz.

    One of the rates is 8000, the other 16000 or 24000. Keeps its state from chunk to chunk, so a stream cut
    anywhere sounds the same as in one piece. The stream is little-endian int16, or of ``law``: G.711.

    Going up: exactly ``ratio`` samples for each one. Going down: one for each full group of ``ratio`` samples
    since the start of the stream; a rest, be it half a sample, is kept for the next chunk.
    """

    __slots__ = (
        "_blocks",
        "_codes",
        "_factor",
        "_in",
        "_kept",
        "_loud",
        "_matrix",
        "_out",
        "_place",
        "_planned",
        "_product",
        "_rest",
        "_rest_after",
        "_rest_planned",
        "_result",
        "_safe",
        "_silence",
        "_start",
        "_stream",
        "_tail",
        "_type",
        "_width",
        "_windows",
        "source",
        "target",
    )

    def __init__(self, source: int, target: int, law: Law | None = None) -> None:
        if min(source, target) != 8000 or max(source, target) not in _TAPS:
            raise ValueError(f"no filter between {source} and {target} Hz")
        self.source = source
        self.target = target
        self._factor = source // 8000 if source > target else 1
        self._matrix, self._in, self._out = _matrix(source, target)
        self._codes = None if law is None else DECODE_FLOAT[law]
        self._safe = b"" if law is None else codes_up_to(32767 / _gain(self._matrix), law)
        self._silence = b"\0\0" if law is None else SILENCE[law]
        self._type = np.dtype("<i2" if law is None else np.uint8)
        self._width = self._type.itemsize
        # Bytes before a block that its result depends on.
        self._kept = (self._matrix.shape[0] - self._in) * self._width
        self._stream = bytearray(self._kept)
        self._loud = 0  # bytes to come whose results may overshoot
        self.reset()
        self._plan(0)

    def delay_ms(self, hz: float) -> float:
        """Return the delay of a tone (the group delay at ``hz``) in milliseconds."""
        high = max(self.source, self.target)
        h = taps(high)
        n = np.arange(len(h))
        turn = h * np.exp(-2j * np.pi * hz / high * n)
        return float((np.sum(n * turn) / np.sum(turn)).real / high * 1000)

    def reset(self) -> None:
        """Forget the stream: the next chunk begins a new one."""
        self._rest = 0  # bytes of the stream that have not gone into a result yet
        self._stream[: self._kept] = self._silence * (self._kept // self._width)

    def process(self, pcm: Pcm) -> Pcm:
        """Return the resampled chunk: int16, saturated."""
        samples = self.filtered(pcm.astype("<i2", copy=False).tobytes())
        return np.rint(np.clip(samples, _LOWEST, _HIGHEST)).astype(np.int16)

    def pcm(self, data: bytes) -> Pcm:
        """Return the next chunk of the stream, resampled: int16, peaks cut off, fractions too."""
        samples = self.filtered(data)
        if data.translate(None, self._safe):
            self._loud = self._kept + len(data)
        if self._loud > 0:
            self._loud -= len(data)
            np.maximum(samples, _LOWEST, out=samples)
            np.minimum(samples, _HIGHEST, out=samples)
        return samples.astype("<i2")

    def filtered(self, data: bytes) -> Samples:
        """Return the next chunk of the stream, resampled: overshoot and all, valid until the next call."""
        # Views and slices made anew for each chunk would cost as much as the work on them.
        if len(data) != self._planned or self._rest != self._rest_planned:
            self._plan(len(data))
        stream, blocks, product = self._stream, self._blocks, self._product
        stream[self._place] = data
        # Without the copy the overlapping view falls off the fast path of BLAS.
        if self._codes is None:
            np.copyto(blocks, self._windows)
        else:
            self._codes.take(self._windows, out=blocks, mode="clip")
        if len(blocks) <= _MOST_ROWS:
            np.dot(blocks, self._matrix, out=product)
        else:
            for row in range(0, len(blocks), _MOST_ROWS):
                end = row + _MOST_ROWS
                np.dot(blocks[row:end], self._matrix, out=product[row:end])
        stream[self._start] = stream[self._tail]
        self._rest = self._rest_after
        return self._result

    def _plan(self, size: int) -> None:
        """Prepare for a chunk of ``size`` bytes after the present rest."""
        fresh = self._rest + size
        usable = fresh // self._width
        usable -= usable % self._factor
        rows = -(-usable // self._in)
        start = self._kept + self._rest
        room = max(self._kept + fresh, self._kept + rows * self._in * self._width)
        if room != len(self._stream):
            self._stream = self._stream[:start] + bytes(room - start)
        step = self._width
        shape = (rows, self._matrix.shape[0])
        self._windows: npt.NDArray[Any] = np.ndarray(
            shape, self._type, self._stream, 0, (step * self._in, step)
        )
        self._blocks = np.empty(shape, np.float32)
        self._product = np.empty((rows, self._out), np.float32)
        self._result = self._product.reshape(-1)[: usable * self._out // self._in]
        self._rest_after = fresh - usable * step
        self._place = slice(start, start + size)
        self._start = slice(0, self._kept + self._rest_after)
        self._tail = slice(usable * step, self._kept + fresh)
        self._planned, self._rest_planned = size, self._rest


def _gain(matrix: Samples) -> float:
    """Return how much louder than its samples a result can be."""
    return float(np.abs(matrix).sum(axis=0).max())
