"""Voice activity by energy, with the settings of OpenAI's ``server_vad``.

https://developers.openai.com/api/docs/guides/realtime-vad: ``threshold`` 0 to 1 (higher wants louder speech),
``prefix_padding_ms`` of audio are counted to the turn before the speech, ``silence_duration_ms`` without
speech end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from arivox.audio.g711 import Pcm

_FRAME_MS: Final = 20
_ONSET_MS: Final = 60  # a click is shorter than this, a syllable longer
_QUIETEST_DBFS: Final = -60.0
_LOUDEST_DBFS: Final = -20.0
_FULL_SCALE: Final = 32768.0


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began; ``start_ms`` is where the turn begins, padding included."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Speech ended; ``end_ms`` is where the turn ends, the silence that ended it included."""

    end_ms: int


class EnergyVad:
    """Finds turns in one stream of samples. Milliseconds count from the first sample ever fed."""

    def __init__(
        self,
        rate: int,
        threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_duration_ms: int = 500,
        *,
        position_ms: int = 0,
    ) -> None:
        level_dbfs = _QUIETEST_DBFS + (_LOUDEST_DBFS - _QUIETEST_DBFS) * threshold
        self._power = (_FULL_SCALE * 10 ** (level_dbfs / 20)) ** 2
        self._prefix_ms = prefix_padding_ms
        self._silence_ms = silence_duration_ms
        self._frame = rate * _FRAME_MS // 1000
        self._rest = np.zeros(0, np.int16)
        self._first_ms = self._now_ms = position_ms
        self._loud_ms = 0
        self._quiet_ms = 0
        self.speaking = False

    @property
    def reach_back_ms(self) -> int:
        """Return how much of the last audio a turn that begins next can hold."""
        return self._prefix_ms + _ONSET_MS + _FRAME_MS

    def feed(self, pcm: Pcm) -> list[SpeechStarted | SpeechStopped]:
        """Return the turns that began or ended in the next samples: shape (n,), int16."""
        if len(self._rest):
            pcm = np.concatenate([self._rest, pcm])
        count = len(pcm) // self._frame
        self._rest = pcm[count * self._frame :]
        if not count:
            return []
        frames = pcm[: count * self._frame].astype(np.float32).reshape(count, self._frame)
        loud = np.einsum("ij,ij->i", frames, frames) / self._frame > self._power
        found = [self._step(bool(flag)) for flag in loud]
        return [event for event in found if event is not None]

    def _step(self, loud: bool) -> SpeechStarted | SpeechStopped | None:
        self._now_ms += _FRAME_MS
        if self.speaking:
            self._quiet_ms = 0 if loud else self._quiet_ms + _FRAME_MS
            if self._quiet_ms < self._silence_ms:
                return None
            self.speaking = False
            self._loud_ms = 0
            # The next turn cannot reach back into this one.
            self._first_ms = self._now_ms
            return SpeechStopped(self._now_ms)
        self._loud_ms = self._loud_ms + _FRAME_MS if loud else 0
        if self._loud_ms < _ONSET_MS:
            return None
        self.speaking = True
        self._quiet_ms = 0
        return SpeechStarted(max(self._now_ms - _ONSET_MS - self._prefix_ms, self._first_ms))
