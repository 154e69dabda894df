"""Conversion between the media link's format and the one a provider speaks. Stateful, one for each call."""

from __future__ import annotations

import numpy as np

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law, decode, decode_into, encode_samples
from arivox.audio.resample import Resampler, saturated


class Transcoder:
    """Between G.711 on the link and 16-bit linear at the provider.

    ``up`` is the rate of the caller's audio there (8000, 16000 or 24000), ``down`` that of the agent's (16000
    or 24000).
    """

    def __init__(self, link: AudioFormat, *, up: int, down: int) -> None:
        self._law: Law = "alaw" if link.law == "alaw" else "ulaw"
        self._up = Resampler(link.rate, up) if up != link.rate else None
        self._down = Resampler(down, link.rate)
        self._odd = b""

    def to_provider(self, data: bytes) -> bytes:
        """Return the caller's audio as little-endian 16-bit samples at the provider's rate."""
        if self._up is None:
            return decode(data, self._law).astype("<i2", copy=False).tobytes()
        decode_into(self._up.room(len(data)), data, self._law)
        return saturated(self._up.filtered()).tobytes()

    def to_link(self, data: bytes) -> bytes:
        """Return the agent's audio in the link's format. A sample cut in two is joined to its other half."""
        if self._odd or len(data) & 1:
            data = self._odd + data
            whole = len(data) & ~1
            data, self._odd = data[:whole], data[whole:]
        pcm = np.frombuffer(data, "<i2")
        self._down.room(len(pcm))[:] = pcm
        return encode_samples(self._down.filtered(), self._law)

    def restart(self) -> None:
        """Forget the agent's stream: the next audio begins a new one."""
        self._down.reset()
        self._odd = b""
