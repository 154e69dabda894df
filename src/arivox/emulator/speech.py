"""What the emulator needs to speak and to hear. Implementations: ``voice.py`` and ``ears.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from arivox.audio.g711 import Pcm


class Voice(Protocol):
    """Turns text into speech. Blocking: call it off the event loop."""

    @property
    def rate(self) -> int:
        """Samples per second of what ``say`` returns."""
        ...

    def say(self, text: str) -> Pcm:
        """Return ``text`` spoken: shape (n,), int16, mono, at ``rate``."""
        ...


class Ears(Protocol):
    """Turns speech into text. Blocking: call it off the event loop."""

    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        """Return the words in ``pcm`` (shape (n,), int16, mono, ``rate`` 8000, 16000 or 24000), or ``""``.

        With ``phrases`` only one of them can be heard: it comes back exactly as it was given, or ``""`` when
        none of them fits.
        """
        ...
