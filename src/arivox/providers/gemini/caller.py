"""The caller's audio that the session's saved state does not hold: what another connection must hear again.

Pure. A session is taken up as it was when its latest handle was made. What the caller has said since then,
and nobody has answered, would be lost with the old connection.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from arivox.audio.format import PTIME_MS
from arivox.audio.g711 import Law
from arivox.audio.voice import KEPT_FRAMES, ONSET_FRAMES, PRE_ROLL_FRAMES, quiet_codes

_PAUSE_FRAMES: Final = 600 // PTIME_MS  # the longest pause kept between two words: more would tell nothing
_WORD_PAUSE_FRAMES: Final = 100 // PTIME_MS  # a pause no longer is one within a word
_NO_PAUSE_FRAMES: Final = 2000 // PTIME_MS  # a line without a pause for so long hums
_ENOUGH_FRAMES: Final = 500 // PTIME_MS  # of voice bring an answer
_ANSWER_DUE_FRAMES: Final = 1500 // PTIME_MS  # of silence after the last word: by then the service answers


class CallerAudio:
    """Frames of one ptime in G.711, as they come.

    Keeps 15 s of words at most, with 240 ms before the first and pauses of up to 600 ms after each.
    """

    def __init__(self, law: Law) -> None:
        self.overflowed = 0
        """Frames of the caller's words that were never sent, and given up for newer ones."""
        self._quiet_codes = quiet_codes(law)
        self._recent: deque[bytes] = deque(maxlen=PRE_ROLL_FRAMES)
        self._spoken: deque[bytes] = deque()
        self._held_back = 0  # frames in a row that were not sent
        self._unsent = 0  # of those that are kept, the latest
        self._being_answered = 0  # and the earliest
        self._cut_off = False  # what was sent of the present words is forgotten
        self._run = 0  # frames without a pause between words
        self._since_cut = 0  # frames
        self._loud_since_cut = 0
        self._loud = 0  # frames in a row
        self._since_loud = PRE_ROLL_FRAMES

    @property
    def voice(self) -> bool:
        """Return whether the caller has said something that the state does not hold."""
        return bool(self._spoken)

    @property
    def speaking(self) -> bool:
        """Return whether the caller is in the middle of their words, by their sound."""
        return bool(self._spoken) and self._since_loud <= _PAUSE_FRAMES

    @property
    def talking(self) -> bool:
        """Return whether the caller is in the middle of a word: no service has taken that for the end."""
        within = bool(self._spoken) and self._since_loud <= _WORD_PAUSE_FRAMES
        return within and self._run < _NO_PAUSE_FRAMES

    @property
    def cut_off(self) -> bool:
        """Return whether the caller may still be in the middle of words whose beginning was forgotten."""
        return self._cut_off

    @property
    def talked_on(self) -> bool:
        """Return whether they then said enough for an answer, and paused. A hum that never pauses is none."""
        return self._loud_since_cut >= _ENOUGH_FRAMES and self._since_cut < _NO_PAUSE_FRAMES

    @property
    def unanswered(self) -> bool:
        """Return whether the caller has said something, and waits longer than an answer takes."""
        return bool(self._spoken) and self._since_loud > _ANSWER_DUE_FRAMES

    def add(self, frame: bytes, *, sent: bool = True) -> None:
        """Take the next frame, which was ``sent`` or has no connection to go over."""
        self._recent.append(frame)
        paused = self._since_loud > _PAUSE_FRAMES
        if frame.translate(None, self._quiet_codes):
            self._loud += 1
            self._since_loud = 0
        else:
            self._loud = 0
            self._since_loud += 1
        self._run = self._run + 1 if self._since_loud <= _WORD_PAUSE_FRAMES else 0
        if self._cut_off:
            self._since_cut += 1
            self._loud_since_cut += self._since_loud == 0
            self._cut_off = self._since_loud <= _PAUSE_FRAMES and self._since_cut < _NO_PAUSE_FRAMES
        self._held_back = 0 if sent else self._held_back + 1
        wordless = self._since_loud > _PAUSE_FRAMES if self._spoken else self._loud < ONSET_FRAMES
        if wordless:
            return
        added = self._recent if paused or not self._spoken else (frame,)
        self._spoken.extend(added)
        self._unsent = 0 if sent else self._unsent + min(self._held_back, len(added))
        while len(self._spoken) > KEPT_FRAMES:
            self._spoken.popleft()
            self._being_answered = max(self._being_answered - 1, 0)
            if self._unsent > len(self._spoken):
                self._unsent -= 1
                self.overflowed += 1

    def answer_begins(self) -> None:
        """Hear that the agent answers what was said so far."""
        self._being_answered = len(self._spoken) - self._unsent

    def answered(self) -> None:
        """Hear that the answer is complete: to be heard again, those words would get another."""
        for _ in range(self._being_answered):
            self._spoken.popleft()
        self._being_answered = 0

    def acted_on(self) -> None:
        """Hear that the agent calls a tool for what was said: heard again, it would be done twice."""
        if self._being_answered:
            self.answered()
        else:
            self.saved()

    def saved(self) -> None:
        """Hear that the state holds everything up to now, but for a word that is just being said."""
        self._drop_sent()
        if not self._spoken and self._since_loud < PRE_ROLL_FRAMES:
            self._spoken.extend(self._recent)

    def forget(self) -> None:
        """Hear that nothing which was sent may be sent again. What never was stays."""
        within = bool(self._spoken) and self._since_loud < PRE_ROLL_FRAMES
        self._cut_off = within and self._run < _NO_PAUSE_FRAMES
        self._since_cut = self._loud_since_cut = 0
        self._drop_sent()
        self._recent.clear()
        self._loud = 0
        if not self._spoken:
            self._since_loud = PRE_ROLL_FRAMES

    def lost(self) -> None:
        """Hear that nothing of what is kept has reached the connection that is used from now on."""
        self._unsent = len(self._spoken)

    def unsent(self) -> tuple[bytes, ...]:
        """Return the words that the connection has not been sent, which it is sent now."""
        count, self._unsent = self._unsent, 0
        return tuple(self._spoken)[len(self._spoken) - count :]

    def replay(self) -> tuple[bytes, ...]:
        """Return the frames that another connection is sent first: at least the latest 300 ms."""
        self._unsent = 0
        return tuple(self._spoken or self._recent)

    def _drop_sent(self) -> None:
        while len(self._spoken) > self._unsent:
            self._spoken.popleft()
        self._being_answered = 0
