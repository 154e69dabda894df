"""Level of the caller's voice: raises quiet callers towards a target without clicks or pumping."""

from __future__ import annotations

from typing import Final

import numpy as np

from arivox.audio.g711 import Pcm

_FULL_SCALE: Final = 32768.0
_ATTACK: Final = 0.35  # share of the way a measured level moves up in one frame
_RELEASE: Final = 0.04  # and down: slow, so that pauses between words do not pump
_GAIN_STEP: Final = 1.06  # largest change of gain in one frame (0.5 dB)
_CEILING: Final = 32000.0


class Leveller:
    """Gain control for one stream of 20 ms frames.

    The level is measured over speech only (frames louder than ``min_rms``), the gain moves by at most 0.5 dB
    a frame, is ramped inside the frame, never falls below 1 and is held back where a peak would clip.

    Levels are RMS in units of full scale (1.0), as the setting ``TARGET_RMS`` gives them.
    """

    __slots__ = ("_gain", "_level", "max_gain", "min_rms", "target_rms")

    def __init__(self, target_rms: float, min_rms: float = 0.001, max_gain: float = 2.0) -> None:
        self.target_rms = target_rms
        self.min_rms = min_rms
        self.max_gain = max_gain
        self._gain = 1.0
        # A caller is taken to be loud enough until shown otherwise: the first word is not blown up.
        self._level = target_rms

    @property
    def gain(self) -> float:
        """Return the gain at the end of the last frame."""
        return self._gain

    def process(self, pcm: Pcm) -> Pcm:
        """Return the frame at its new level: same shape, int16."""
        if not len(pcm):
            return pcm
        samples = pcm.astype(np.float32)
        rms = float(np.sqrt(np.dot(samples, samples) / len(samples))) / _FULL_SCALE
        if rms > self.min_rms:
            share = _ATTACK if rms > self._level else _RELEASE
            self._level += (rms - self._level) * share
        before = self._gain
        wanted = min(max(self.target_rms / self._level, 1.0), self.max_gain)
        after = min(max(wanted, before / _GAIN_STEP), before * _GAIN_STEP)
        magnitude = np.abs(samples)
        limit = max(_CEILING / max(float(magnitude.max()), 1.0), 1.0)
        ramp = len(samples)
        if limit < max(before, after):
            # The gain must be down by the first sample that it would clip.
            after = min(after, limit)
            ramp = int(np.argmax(magnitude * max(before, after) > _CEILING))
        self._gain = after
        if before == after == 1.0:
            return pcm
        samples[:ramp] *= np.linspace(before, after, ramp, dtype=np.float32)
        samples[ramp:] *= after
        np.rint(samples, out=samples)
        np.maximum(samples, -32768, out=samples)
        np.minimum(samples, 32767, out=samples)
        return samples.astype(np.int16)
