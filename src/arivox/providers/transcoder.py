"""Conversion between the media link's format and the one a provider speaks. Stateful, one for each call."""

from __future__ import annotations

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law, decode, encode_samples
from arivox.audio.resample import Resampler


class Transcoder:
    """Between G.711 on the link and 16-bit linear at the provider.

    ``up`` is the rate of the caller's audio there (8000, 16000 or 24000), ``down`` that of the agent's (16000
    or 24000).
    """

    def __init__(self, link: AudioFormat, *, up: int, down: int) -> None:
        self._law: Law = "alaw" if link.law == "alaw" else "ulaw"
        self._up = Resampler(link.rate, up, self._law) if up != link.rate else None
        self._down = Resampler(down, link.rate)

    def to_provider(self, data: bytes) -> bytes:
        """Return the caller's audio as little-endian 16-bit samples at the provider's rate."""
        if self._up is None:
            return decode(data, self._law).astype("<i2", copy=False).tobytes()
        return self._up.pcm(data).tobytes()

    def to_link(self, data: bytes) -> bytes:
        """Return the agent's audio in the link's format. A sample cut in two is joined to its other half."""
        return encode_samples(self._down.filtered(data), self._law)

    def restart(self) -> None:
        """Forget the agent's stream: the next audio begins a new one."""
        self._down.reset()
