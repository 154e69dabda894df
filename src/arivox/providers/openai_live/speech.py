"""The agent's speech in an endless stream of sound: where utterances begin and end, what silence is played.

Pure. The service sends one stream, silence and all, at the pace of speech. To the caller goes

- every piece with a voice in it, whatever happens,
- up to 60 ms of faint sound right before a voice, which may be a soft consonant, and 100 ms after it: the gap
  of a "p" is part of its word,
- of a longer pause what is needed for the next word to come in its place. A pause is only known when it is
  over, and by then the media link has played silence of its own.

When the network stalls, much comes at once and the queue to the caller grows: then the rest of the pauses is
left out until the queue is short again. Silence between utterances is never sent.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

import numpy as np

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import DECODE, Law
from arivox.providers.base import SessionCounters

PIECE_MS: Final = 20
END_S: Final = 0.7
"""Silence, or nothing at all, that ends an utterance."""

_LOUD: Final = 104  # -50 dBFS
_FAINT: Final = 32  # -60 dBFS: below it nothing is heard, and to send it first would only delay the voice
_LOUD_SHARE: Final = 0.05  # of a piece's samples: a click is not a voice
_END: Final = int(END_S * 1000) // PIECE_MS
_BEFORE: Final = 60 // PIECE_MS
_AFTER: Final = 100 // PIECE_MS
_PAUSE: Final = 300 // PIECE_MS  # the longest pause kept beyond what comes after a voice
_SHALLOW_MS: Final = 120.0
# What comes in one piece is played over its own length: that much more than the shallowest queue is no burst.
_LONG_DELTA_MS: Final = 250.0
_DROPPED_TO: Final = (
    300 // PIECE_MS
)  # silence, or nothing, that ends an utterance which is not wanted any more
_LONGEST_DROP_S: Final = 3.0
# The same once the model knows what to say instead: it breaks off, and begins with little rest between.
_ANSWER_AFTER: Final = 100 // PIECE_MS
_LONGEST_REACTION_S: Final = 1.0


class Edge(Enum):
    """Where an utterance begins or ends in what ``Speech`` returns."""

    BEGUN = auto()
    ENDED = auto()


def _table(law: Law, level: int) -> bytes:
    return (np.abs(DECODE[law].astype(np.int32)) > level).astype(np.uint8).tobytes()


class Speech:
    """The agent's side of one session, in G.711. ``now`` is in seconds on any steady clock.

    Counts what it leaves out in ``counters``.
    """

    def __init__(self, audio: AudioFormat, counters: SessionCounters) -> None:
        self.speaking = False
        self.received_at = float("-inf")
        """When the last audio arrived."""
        self.voice_at = float("-inf")
        """When the last audio with a voice in it arrived."""
        law: Law = "alaw" if audio.law == "alaw" else "ulaw"
        self._loud = _table(law, _LOUD)
        self._faint = _table(law, _FAINT)
        self._size = audio.bytes_for(PIECE_MS)
        self._enough = int(self._size * _LOUD_SHARE)
        self._counters = counters
        self._rest = b""
        self._before: deque[bytes] = deque(maxlen=_BEFORE)  # faint, and not sent yet
        self._held: list[bytes] = []
        self._quiet = 0  # pieces of silence since the last voice
        self._dry_at = float("-inf")  # when the queue to the caller runs dry
        self._own_ms = 0.0  # how much the present audio itself makes the queue longer
        self._dropping = False
        self._drop_until = 0.0
        self._drop_to = _DROPPED_TO
        self._run: list[bytes] = []
        self._out: list[bytes | Edge] = []

    def ahead_ms(self, now: float) -> float:
        """Return how much of what was passed on is still to be played."""
        return max(0.0, self._dry_at - now) * 1000

    def feed(self, data: bytes, now: float) -> list[bytes | Edge]:
        """Take audio of the stream. Return what to play, and where utterances begin and end."""
        if self._dropping and now - self.received_at >= _DROPPED_TO * PIECE_MS / 1000:
            self._dropping = False  # the server need not send silence
        self.received_at = now
        size, enough = self._size, self._enough
        self._own_ms = min(len(data) * PIECE_MS / size, _LONG_DELTA_MS)
        if self._rest:
            data = self._rest + data
        loud = data.translate(self._loud).count
        whole = len(data) - len(data) % size
        end = 0
        while end < whole:
            start, end = end, end + size
            if loud(1, start, end) <= enough:
                self._silence(data[start:end])
                continue
            if self.speaking and not self._held:
                while end < whole and loud(1, end, end + size) > enough:
                    end += size
            self._voice(data[start:end], now)
        self._rest = data[whole:]
        return self._take()

    def idle(self, now: float) -> list[bytes | Edge]:
        """End the utterance if nothing has arrived for long. Return as ``feed`` does."""
        if self.speaking and now - self.received_at >= END_S:
            rest, self._rest = self._rest, b""
            if rest:
                self._pass(rest, now)
            self._end()
        return self._take()

    def cut(self, now: float, *, drop: bool) -> bool:
        """End the utterance here: what is queued was thrown away. With ``drop`` the rest of it is not wanted.

        Return whether there was one. Without ``drop``, a voice that goes on begins another.
        """
        was_speaking, self.speaking = self.speaking, False
        self._held.clear()
        self._before.clear()
        self._dry_at = now
        if drop and was_speaking and self._quiet < _DROPPED_TO:
            self._dropping = True
            self._drop_until = now + _LONGEST_DROP_S
            self._drop_to = _DROPPED_TO
        return was_speaking

    def expect(self, now: float) -> None:
        """Hear that the model was told what to say in place of the utterance that is not wanted."""
        self._drop_to = _ANSWER_AFTER
        self._drop_until = min(self._drop_until, now + _LONGEST_REACTION_S)

    # --- inside ---

    def _voice(self, piece: bytes, now: float) -> None:
        """Take a piece with a voice in it; while the agent speaks without a pause, also several in one."""
        self.voice_at = now
        if self._dropping:
            if now < self._drop_until:
                self._quiet = 0
                self._counters.late_audio_ms += PIECE_MS
                return
            self._dropping = False
        if not self.speaking:
            self.speaking = True
            self._out.append(Edge.BEGUN)
            for earlier in self._before:
                self._pass(earlier, now)
        elif self._held:
            self._pause(now)
        self._before.clear()
        self._quiet = 0
        self._pass(piece, now)

    def _silence(self, piece: bytes) -> None:
        self._quiet += 1
        if piece.translate(self._faint).count(1) > self._enough:
            self._before.append(piece)
        else:
            self._before.clear()
        if not self.speaking:
            if self._dropping and self._quiet >= self._drop_to:
                self._dropping = False
        elif self._quiet <= _AFTER:
            self._pass(piece, self.received_at)
        else:
            self._held.append(piece)
            if self._quiet >= _END:
                self._end()

    def _pause(self, now: float) -> None:
        """Play as much of the pause before this voice as puts it in its place, unless the queue is long."""
        played = round(max(0.0, now - self._dry_at) * 1000 / PIECE_MS)
        needed = max(0, len(self._held) - played)
        room = max(0, int((_SHALLOW_MS + self._own_ms - self.ahead_ms(now)) // PIECE_MS) + 1)
        kept = min(max(min(needed, room, _PAUSE), len(self._before)), len(self._held))
        self._counters.skipped_silence_ms += max(0, needed - kept) * PIECE_MS
        for piece in self._held[len(self._held) - kept :]:
            self._pass(piece, now)
        self._held.clear()

    def _pass(self, piece: bytes, now: float) -> None:
        self._dry_at = max(self._dry_at, now) + PIECE_MS / 1000 * len(piece) / self._size
        self._run.append(piece)

    def _end(self) -> None:
        self.speaking = False
        self._held.clear()
        self._flush_run()
        self._out.append(Edge.ENDED)

    def _take(self) -> list[bytes | Edge]:
        self._flush_run()
        out, self._out = self._out, []
        return out

    def _flush_run(self) -> None:
        if self._run:
            self._out.append(b"".join(self._run))
            self._run.clear()
