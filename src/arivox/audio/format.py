"""What the bytes of a stream of audio mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from arivox.audio.g711 import ALAW_SILENCE, ULAW_SILENCE


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """A mono encoding with a fixed number of bytes for each sample."""

    name: str
    """Asterisk's name for it: ``ulaw``, ``alaw``, ``slin``, ``slin16``, ``slin24``."""
    rate: int
    """Samples per second."""
    sample_bytes: int
    silence: bytes
    """One sample of silence."""

    def bytes_for(self, ms: float) -> int:
        """Return the bytes of ``ms`` milliseconds, whole samples."""
        return int(ms * self.rate / 1000) * self.sample_bytes

    def ms(self, size: int) -> float:
        """Return how many milliseconds ``size`` bytes last."""
        return size / self.sample_bytes / self.rate * 1000

    def whole_ms(self, size: int) -> int:
        """Return the whole milliseconds in ``size`` bytes, exactly."""
        return size * 1000 // (self.sample_bytes * self.rate)

    @property
    def law(self) -> str | None:
        """Return ``ulaw`` or ``alaw`` for G.711, else None."""
        return self.name if self.name in {"ulaw", "alaw"} else None


ULAW: Final = AudioFormat("ulaw", 8000, 1, bytes([ULAW_SILENCE]))
ALAW: Final = AudioFormat("alaw", 8000, 1, bytes([ALAW_SILENCE]))
SLIN24: Final = AudioFormat("slin24", 24000, 2, b"\0\0")
SLIN16: Final = AudioFormat("slin16", 16000, 2, b"\0\0")

PTIME_MS: Final = 20
"""Length of every frame towards Asterisk."""
