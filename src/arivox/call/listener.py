"""What the line itself tells of the caller's voice, beside what the AI says of it. Pure.

By level alone: good enough to tell that a caller who is said to speak does not, or that one who spoke was not
heard. Whether a sound is a word the AI decides.
"""

from __future__ import annotations

from typing import Final

from arivox.audio.format import PTIME_MS
from arivox.audio.g711 import Law
from arivox.audio.voice import ONSET_FRAMES, quiet_codes

_PAUSE_FRAMES: Final = 1000 // PTIME_MS  # a longer one ends what was being said
_ECHO_FRAMES: Final = 800 // PTIME_MS  # so long after the agent's sound its echo may come back


class Listener:
    """The caller's frames of one ptime in G.711, as they come."""

    def __init__(self, law: Law) -> None:
        self.said_s = 0.0
        """Seconds of voice in what the caller said last, or is saying."""
        self.began_at = 0
        """What ``signs`` was when it began."""
        self._quiet_codes = quiet_codes(law)
        self._loud = 0  # frames in a row
        self._quiet = 0  # frames since the last voice
        self._agent = _ECHO_FRAMES  # frames since the agent could be heard

    @property
    def quiet_s(self) -> float:
        """Return the seconds since the last voice, of sound that came."""
        return self._quiet * PTIME_MS / 1000

    def add(self, frame: bytes, *, agent: bool, signs: int) -> None:
        """Take the next frame; ``agent``: the agent is to be heard; ``signs``: messages of the AI so far."""
        self._agent = 0 if agent else self._agent + 1
        if not frame.translate(None, self._quiet_codes):
            self._loud = 0
            self._quiet += 1
            return
        self._loud += 1
        if self._loud < ONSET_FRAMES:
            self._quiet += 1
            return
        if self._agent < _ECHO_FRAMES:
            return  # it may be the agent's own voice: neither speech nor silence
        if self._quiet > _PAUSE_FRAMES:
            self.said_s = 0.0
            self.began_at = signs
        self._quiet = 0
        # Each syllable begins anew: what tells that it is one is part of it.
        self.said_s += PTIME_MS / 1000 * (ONSET_FRAMES if self._loud == ONSET_FRAMES else 1)

    def forget(self) -> None:
        """Take what was said for dealt with."""
        self.said_s = 0.0
