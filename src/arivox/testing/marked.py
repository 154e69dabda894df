"""A sound in which every moment can be told apart: a slow chirp, read back from any 50 ms of it.

It answers "how many milliseconds of this answer did the caller hear?" and "was anything missing or repeated?"
through G.711 and resampling, to about a millisecond.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from arivox.audio.g711 import Pcm
from arivox.testing.signal import active_segments, amplitude

# Inside the telephone band, with room for the filters of a 24 kHz path.
LOWEST_HZ: Final = 400.0
HIGHEST_HZ: Final = 3200.0
WINDOW_MS: Final = 100.0


@dataclass(frozen=True, slots=True)
class MarkedStream:
    """A linear chirp from 400 to 3200 Hz over ``seconds`` (1 to 600), at ``level_dbfs``."""

    seconds: float
    level_dbfs: float = -12.0

    @property
    def hz_per_s(self) -> float:
        """How fast the frequency rises."""
        return (HIGHEST_HZ - LOWEST_HZ) / self.seconds

    def pcm(self, rate: int = 8000) -> Pcm:
        """Return the whole stream at ``rate``: int16, shape (seconds * rate,)."""
        t = np.arange(round(self.seconds * rate)) / rate
        phase = 2 * np.pi * (LOWEST_HZ * t + self.hz_per_s / 2 * t * t)
        return np.rint(np.sin(phase) * amplitude(self.level_dbfs)).astype(np.int16)

    def position_ms(self, heard_tail: Pcm, rate: int = 8000) -> float:
        """Return the place in the stream of the last sound in ``heard_tail``, in ms from the stream's start.

        Silence after the sound is passed over. Up to the last 100 ms of sound are used.
        Raise ValueError where there are not 20 ms of sound.
        """
        segments = active_segments(heard_tail, rate)
        if not segments:
            raise ValueError("nothing is heard, so no place in the marked stream can be told")
        start_ms, end_ms = segments[-1]
        end = round(end_ms * rate / 1000)
        start = max(round(start_ms * rate / 1000), end - round(WINDOW_MS * rate / 1000))
        return self._middle_ms(heard_tail[start:end], rate) + (end - start) / 2 * 1000 / rate

    def track(self, heard: Pcm, rate: int = 8000, hop_ms: float = 20.0) -> npt.NDArray[np.float64]:
        """Return the reading of the stream along ``heard``: shape (n, 2), columns (heard ms, stream ms).

        Each reading stands for the middle of a 100 ms window; windows that touch silence are left out.
        """
        size, hop = round(WINDOW_MS * rate / 1000), round(hop_ms * rate / 1000)
        rows = []
        for start_ms, end_ms in active_segments(heard, rate):
            for start in range(round(start_ms * rate / 1000), round(end_ms * rate / 1000) - size + 1, hop):
                middle = (start + size / 2) * 1000 / rate
                rows.append((middle, self._middle_ms(heard[start : start + size], rate)))
        return np.array(rows, np.float64).reshape(-1, 2)

    def jumps(self, heard: Pcm, rate: int = 8000, min_ms: float = 8.0) -> list[tuple[float, float]]:
        """Return where the stream jumped while it was heard, as (heard ms, jump ms).

        A positive jump is a piece of that length never heard; a negative one was heard twice, or is silence
        pushed in between. Places are right to about 50 ms, lengths to about 2 ms. Swapped packets leave no
        jump, nor does a short silence in the place of a piece: ``signal.dropouts`` finds those in a tone.
        """
        track = self.track(heard, rate)
        lead = track[:, 1] - track[:, 0]
        # Readings whose windows straddle a seam belong to neither side.
        steady = np.ones(len(lead), bool)
        moved = np.flatnonzero(np.abs(np.diff(lead)) > min_ms / 4)
        steady[moved] = False
        steady[moved + 1] = False
        found = []
        kept = np.flatnonzero(steady)
        for before, after in itertools.pairwise(kept):
            jump = float(lead[after] - lead[before])
            if abs(jump) >= min_ms:
                found.append((float(track[before, 0] + track[after, 0]) / 2, jump))
        return found

    def _middle_ms(self, pcm: Pcm, rate: int) -> float:
        """Return the place of the middle of ``pcm`` in the stream."""
        n = len(pcm)
        t = (np.arange(n) - (n - 1) / 2) / rate
        # The known sweep is undone around the middle, which leaves a steady tone of the middle's frequency.
        spectrum = np.fft.fft(pcm - pcm.mean())
        spectrum[n // 2 :] = 0
        still = np.fft.ifft(spectrum) * np.exp(-1j * np.pi * self.hz_per_s * t * t) * np.hanning(n + 2)[1:-1]
        size = 1 << (4 * n - 1).bit_length()
        power = np.abs(np.fft.fft(still, size)[: size // 2])
        peak = min(max(int(np.argmax(power)), 1), size // 2 - 2)
        left, centre, right = np.log(power[peak - 1 : peak + 2] + 1e-9)
        bend = left - 2 * centre + right
        frequency = (peak + (0.5 * (left - right) / bend if bend else 0.0)) * rate / size
        return float((frequency - LOWEST_HZ) / self.hz_per_s * 1000)
