"""What the caller has said and the AI has neither written down nor answered. Pure.

What is written down, the next session is told; the rest it must hear.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from arivox.audio.format import PTIME_MS
from arivox.audio.g711 import Law
from arivox.audio.voice import KEPT_FRAMES, ONSET_FRAMES, PRE_ROLL_FRAMES, quiet_codes

# Without turns an answer is known to be over by the silence after it: the caller may speak in it already.
_SILENCE_MS: Final = 1000.0


class Unanswered:
    """The caller's side of one call, in G.711 frames of one ptime.

    With ``full_duplex`` the AI hears while it speaks, and tells of words a second or two later.
    """

    def __init__(self, law: Law, *, full_duplex: bool) -> None:
        self.dropped = 0
        """Frames that had no session to go to, and were given up for newer ones."""
        self.speaking = False
        """The caller speaks, as far as the AI tells."""
        self.open = False
        """They said something that is not answered."""
        self.wordless = False
        """They said something that is neither answered nor written down."""
        self._full_duplex = full_duplex
        self._quiet_codes = quiet_codes(law)
        self._frames: deque[bytes] = deque(maxlen=KEPT_FRAMES)
        self._item = ""  # the latest turn, where turns have names
        self._texts_due = 0  # turns that ended, and are not written down yet
        self._answers_turn = False  # the answer in progress began after all that they said

    def add(self, frame: bytes, *, sent: bool) -> None:
        """Take the next frame, which was ``sent`` or has no session to go to."""
        if not sent and len(self._frames) == KEPT_FRAMES:
            self.dropped += 1
        self._frames.append(frame)

    # --- what the AI tells ---

    def speech_started(self, item_id: str = "") -> None:
        """Hear that the caller began to speak."""
        self.speaking = True
        self._item = item_id
        self._said_something()

    def speech_stopped(self) -> None:
        """Hear that the caller's turn ended."""
        self.speaking = False
        self._texts_due += 1

    def active(self, *, earlier: bool) -> None:
        """Hear that the caller has said something; ``earlier`` than the present answer began."""
        self._said_something(answered=earlier and self._answers_turn)

    def written_down(self, text: str, unwritten_ms: float, item_id: str = "") -> None:
        """Hear the words of a turn, and how much sound has come since the last of them."""
        self._texts_due = max(self._texts_due - 1, 0)
        # While they speak, or when another turn has ended since, the words are of an earlier turn.
        latest = item_id == self._item if self._item else not self._texts_due
        if text.strip() and not self.speaking and latest:
            self._keep(unwritten_ms)

    def answer_begins(self) -> None:
        """Hear that the agent begins an answer."""
        self._answers_turn = not self.speaking

    def answered(self) -> None:
        """Hear that the answer is complete."""
        if self.open and self._answers_turn and not self.speaking:
            self.open = False
            self._texts_due = 0
            self._keep(_SILENCE_MS if self._full_duplex else 0)

    # --- the next session ---

    def session_lost(self, *, alone: bool) -> None:
        """Hear that another session takes the place of this one; ``alone``: nothing else brings an answer.

        Keep what it must hear: a turn without a text, or what the AI may not have noticed.
        """
        self.speaking = False
        self._texts_due = 0
        heard_again = self.wordless or alone or self._full_duplex
        voice = self._first_voice() if heard_again else None
        if voice is None:
            self._keep(0)
        else:
            self._frames = deque(islice(self._frames, voice, None), KEPT_FRAMES)

    def heard_again(self) -> None:
        """Hear that another session takes the place of a mute one, and must hear what the caller said."""
        self.session_lost(alone=True)
        self.wordless = bool(self._frames)

    def forget(self) -> None:
        """Hear that another session takes the place of this one, and must hear nothing of this."""
        self.speaking = False
        self._texts_due = 0
        self._keep(0)

    def sound(self) -> bytes:
        """Return what the next session must hear."""
        return b"".join(self._frames)

    # --- inside ---

    def _said_something(self, *, answered: bool = False) -> None:
        self.wordless = self.open = True
        self._answers_turn = answered

    def _keep(self, latest_ms: float) -> None:
        self.wordless = False
        count = min(round(latest_ms / PTIME_MS), len(self._frames))
        self._frames = deque(islice(self._frames, len(self._frames) - count, None), KEPT_FRAMES)

    def _first_voice(self) -> int | None:
        """Return the frame from which on there is a voice; None: there is none."""
        loud = 0
        for index, frame in enumerate(self._frames):
            loud = loud + 1 if frame.translate(None, self._quiet_codes) else 0
            if loud == ONSET_FRAMES:
                return max(0, index + 1 - ONSET_FRAMES - PRE_ROLL_FRAMES)
        return None
