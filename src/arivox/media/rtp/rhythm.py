"""How long the caller's stream is against the time that passes, and how long its next packet may take. Pure.

With G.711 the phone's own packets come through: 10 to 120 ms long, evenly or in bursts. So there is no fixed
time after which one is missing. A packet is taken to cover the time before it came; up to where the sound
handed on reaches tells both whether the next one is late and, when it comes, whether it is one too many.

Three kinds of pauses look the same while they last:

- The phone sends nothing and its timestamps go on with the clock (silence suppression, mute): what it left
  out is known to the sample, and silence is put in for exactly that.
- The phone or trunk sends nothing and goes on with the next timestamp (hold): the silence put in meanwhile
  was right, and nothing more happens.
- The network held packets up, and they come all at once. Then the stream is longer than the time by as much
  silence as was put in for them.

Only the third leaves the stream ahead of the time. What may be taken out again is therefore the least of what
was put in, of what the stream is ahead, and of a second.
"""

from __future__ import annotations

from typing import Final

from arivox.audio.format import PTIME_MS

_WAIT_S: Final = 0.160  # what is put in then covers the wait too: the AI loses no time by it
_WAIT_PACKETS: Final = 3  # a packet that is late by two of its own length is only late
_WAIT_MORE_S: Final = 0.040
_LONGEST_WAIT_S: Final = 0.400  # the AI ends a turn after 500 ms of silence
_LEARNED_FOR_S: Final = 30.0
_POLLED_S: Final = PTIME_MS / 1000
_LEAD_S: Final = 0.200  # the most a stream of bursts is trusted to be ahead
_SETTLED_S: Final = 0.500  # after a pause: by then all that was held up has come
_MOST_LATE_S: Final = 1.0
_MOST_AHEAD_S: Final = 5.0
_FASTER: Final = 1.1  # than the time a stream may be for good: stalls come again, and no word is lost
_EXACT_S: Final = 0.001
_NEVER: Final = float("inf")


class Rhythm:
    """The clock of one caller's stream. All times in seconds, ``now`` on the monotonic clock."""

    __slots__ = (
        "_began",
        "_came",
        "_given",
        "_judged_at",
        "_late",
        "_learned",
        "_learned_until",
        "_length",
        "_pause",
        "_peak",
        "_until",
        "even",
        "filled",
    )

    def __init__(self) -> None:
        self.filled = 0.0
        """Silence that was put in since the last packet."""
        self.even = True
        """Whether nothing that was put in is in question: no packet has to be looked at."""
        self._began = False
        self._until = 0.0  # where the sound handed on reaches
        self._given = 0.0  # the same, of a listener who never waits: how far a flood is ahead of the time
        self._came = 0.0  # the last packet
        self._length = 0.0  # of the last packet
        self._late = 0.0  # silence put in for what may still come, at most a second
        self._judged_at = _NEVER
        self._peak = 0.0  # how far the stream got ahead since
        self._pause = 0.0  # the gap after which it got there
        self._learned = 0.0  # such a gap is this stream's rhythm
        self._learned_until = 0.0

    # --- packets ---

    def follows(self, length: float, now: float) -> bool:
        """Take a packet that came and is handed on, if nothing is in question; else do nothing."""
        if not self.even or self.filled or not self._length or self._learned:
            return False
        given = max(self._given, now) + length / _FASTER
        if given - now > _MOST_AHEAD_S:
            return False
        self._given = given
        self._came = now
        self._length = length
        self._until += length
        return True

    def came(self, length: float, now: float) -> None:
        """Take note of the next packet in order, of ``length`` seconds, before it is handed on."""
        if not self._length:
            self._began = True
            self._until = now - length  # the first packet says where the stream stands
            self.filled = 0.0
        elif self._learned:
            if now - max(self._until, self._came) > self._base():
                self._learned_until = now + _LEARNED_FOR_S
            elif now > self._learned_until:
                self._learned = 0.0
        self._came = now
        self._length = length

    def missing(self, pause: float, now: float) -> float:
        """Return how much silence is still to be put in before the packet that ``came``.

        ``pause`` is what its timestamp says that the phone left out.
        """
        rest = self._without_filled(pause, now)
        # A pause is as long as the time it took. In a burst that is not known, so what is owed there counts.
        room = self._late + _LEAD_S + now - self._until - self._length
        return max(min(rest, room), 0.0)

    def lost(self, length: float, now: float) -> float:
        """Return how much of ``length`` seconds that were lost is still to be made up for."""
        return max(min(self._without_filled(length, now), self.room(now) - _MOST_AHEAD_S / 2), 0.0)

    def excess(self, rest: float, now: float) -> float:
        """Return how much of the next ``rest`` seconds may be left out, because silence stands for them."""
        ahead = min(self._until + rest - now, self._late)
        self._peak = max(self._peak, ahead)
        if now >= self._judged_at:
            self._judge(ahead, now)
        self.even = self._late < _EXACT_S and self._judged_at == _NEVER
        return ahead

    def restarted(self, length: float, now: float) -> float:
        """Return the silence that is missing before the first packet of another stream."""
        self.filled = self._late = 0.0
        self.even = True
        return max(min(now - length - self._until, _MOST_LATE_S), 0.0) if self._length else 0.0

    def left_out(self, length: float) -> None:
        """Hear that so much was left out."""
        self._late = max(self._late - length, 0.0)

    def room(self, now: float) -> float:
        """Return how much may be handed on now: a stream is never so far ahead of the time."""
        return max(_MOST_AHEAD_S - max(self._given - now, 0.0), 0.0) * _FASTER

    def gave(self, length: float, now: float) -> None:
        """Hear that so much was handed on."""
        self._until += length
        self._given = max(self._given, now) + length / _FASTER

    # --- silence ---

    def idle(self, now: float) -> bool:
        """Return whether a packet came so lately that the next one cannot be late."""
        return now - self._came < _WAIT_S and self._length > 0.0

    def late(self, now: float) -> bool:
        """Return whether the next packet is given up, and silence stands for it."""
        if self.filled or not self._began:
            return self._began
        reach = min(max(self._until, self._came), self._came + _LEAD_S)
        return now - reach >= self._wait(now)

    def owed(self, now: float) -> float:
        """Return how much silence to put in now, because packets do not come."""
        if not self._began:
            self._begin(now)
        if not self.late(now):
            return 0.0
        if not self.filled:
            self._until = min(self._until, now - self._wait(now))
        # A process that stood still does not make up for more than a second.
        self._until = max(self._until, now - self._length - _MOST_LATE_S)
        return now - self._until - self._length

    def put_in(self, length: float, now: float) -> None:
        """Hear that so much silence was put in for packets that did not come."""
        self.filled += length
        self.gave(length, now)

    # --- inside ---

    def _begin(self, now: float) -> None:
        self._began = True
        self._until = self._came = now - _POLLED_S

    def _without_filled(self, pause: float, now: float) -> float:
        filled, self.filled = self.filled, 0.0
        if filled > pause + _EXACT_S:
            self._late = min(self._late + filled - pause, _MOST_LATE_S)
            self._judged_at = now + _SETTLED_S
            self._pause = max(self._pause, filled + self._length)
            self.even = False
        return pause - filled

    def _base(self) -> float:
        return max(_WAIT_S, _WAIT_PACKETS * self._length + _WAIT_MORE_S)

    def _wait(self, now: float) -> float:
        """Return how long after the end of the last packet the next one is given up."""
        if now < self._learned_until:
            return max(self._base(), self._learned)
        self._learned = 0.0
        return self._base()

    def _judge(self, ahead: float, now: float) -> None:
        """All that was late is here: what the stream is not ahead of the time by now was a true pause."""
        if self._peak > _EXACT_S:
            self._learned = min(self._pause + _WAIT_MORE_S, _LONGEST_WAIT_S)
            self._learned_until = now + _LEARNED_FOR_S
        self._late = ahead if ahead > _EXACT_S else 0.0
        self._peak = self._pause = 0.0
        self._judged_at = _NEVER
