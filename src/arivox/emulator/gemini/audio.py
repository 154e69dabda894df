"""The caller's audio as it comes: what its MIME type says, and the one rate nobody else here knows."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from arivox.audio.format import SLIN16, SLIN24, AudioFormat
from arivox.emulator.gemini.messages import invalid

SLIN8: Final = AudioFormat("slin", 8000, 2, b"\0\0")
_WIDE_RATE: Final = 48_000
_FORMATS: Final = {8000: SLIN8, 16000: SLIN16, 24000: SLIN24, _WIDE_RATE: SLIN24}
_HALF_BAND: Final = np.array([-1, 0, 9, 16, 9, 0, -1], np.float32) / 32
_DEFAULT_RATE: Final = 16_000


class Intake:
    """Brings the audio of one session into its ``format``; 48 kHz come in as 24."""

    def __init__(self) -> None:
        self.format = SLIN16
        self._mime = ""
        self._wide = False
        self._history = np.zeros(len(_HALF_BAND) - 1, np.float32)
        self._skip = 0

    def take(self, mime: str, data: bytes) -> bytes:
        """Return the samples of ``data``; ``format`` is theirs.

        Raises:
            RefusedError: It is no audio that the service takes.
        """
        if mime != self._mime:
            rate = _rate(mime)
            self._mime = mime
            self.format = _FORMATS[rate]
            self._wide = rate == _WIDE_RATE
        if len(data) % 2:
            raise invalid("realtimeInput.audio: half a sample.")
        return self._halve(data) if self._wide else data

    def _halve(self, data: bytes) -> bytes:
        pcm = np.concatenate([self._history, np.frombuffer(data, "<i2").astype(np.float32)])
        self._history = pcm[len(pcm) - len(self._history) :]
        if len(pcm) < len(_HALF_BAND):
            return b""
        smooth = np.convolve(pcm, _HALF_BAND, "valid")
        kept = smooth[self._skip :: 2]
        self._skip = (self._skip + len(smooth)) % 2
        return np.clip(np.rint(kept), -32768, 32767).astype("<i2").tobytes()


@lru_cache(maxsize=64)
def _rate(mime: str) -> int:
    kind, *parameters = (part.strip() for part in mime.lower().split(";"))
    if kind != "audio/pcm":
        raise invalid(f"realtimeInput.audio: mime type '{mime}' is not supported.")
    given = dict(parameter.partition("=")[::2] for parameter in parameters)
    text = given.get("rate", str(_DEFAULT_RATE))
    rate = int(text) if text.isdecimal() else 0
    if rate not in _FORMATS:
        raise invalid(f"realtimeInput.audio: the rate of '{mime}' is not supported.")
    return rate
