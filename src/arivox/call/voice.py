"""Whether there is a sound in what the agent says. Pure.

An answer of silence, of a click or of no sound at all is none: the caller still waits.
"""

from __future__ import annotations

from typing import Final

from arivox.audio.format import PTIME_MS, AudioFormat
from arivox.audio.g711 import Law, codes_up_to

_LOUD: Final = 104  # of 32768, -50 dBFS: the level that is a voice in an unbroken stream as well
_LEAST_MS: Final = 2 * PTIME_MS  # of loud samples; a voice has soft ones between


class Voice:
    """The agent's sound in G.711, an answer at a time.

    With ``sifted`` only what has a voice in it comes at all: the first of it may stand alone before a stall.
    """

    def __init__(self, audio: AudioFormat, *, sifted: bool = False) -> None:
        law: Law = "alaw" if audio.law == "alaw" else "ulaw"
        self.heard = False
        """There was a sound in the present answer."""
        self.sounds = False
        """There was one in the latest of it."""
        self._quiet: Final = codes_up_to(_LOUD, law)
        self._enough: Final = 1 if sifted else audio.bytes_for(_LEAST_MS)
        self._loud = 0

    def restart(self) -> None:
        """Hear that another answer begins."""
        self.heard = False
        self._loud = 0

    def add(self, data: bytes) -> None:
        """Take sound of the present answer."""
        loud = len(data.translate(None, self._quiet))
        self._loud += loud
        self.heard = self._loud >= self._enough
        self.sounds = self.heard and loud > 0
