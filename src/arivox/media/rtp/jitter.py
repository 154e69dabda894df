"""The jitter buffer of the caller's audio: order restored, losses concealed, nothing delayed without need.

A packet that is next in sequence passes at once, in frames of no more than 20 ms. After a gap in the sequence
the following packets wait for the missing one, 40 ms or one and a half times its length; then the gap is
filled by the last frame repeated and faded.

The AI's speech detection needs a stream as long as the time that passes. So a pause of a phone that sends
nothing is filled with silence, while it lasts (``poll``) or when the next packet's timestamp tells of it.
Where silence was put in for packets that were only late, as much is taken out of the next quiet frames again.
When a packet is late, and how much may be taken out, is told by its ``Rhythm``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from arivox.audio.format import PTIME_MS, AudioFormat
from arivox.audio.g711 import DECODE, Law, attenuation
from arivox.media.rtp.packet import RtpPacket
from arivox.media.rtp.rhythm import Rhythm

_WAIT_S: Final = 0.040
_WAIT_PACKETS: Final = 1.5  # a packet that changed places with its neighbour is one packet late
_MAX_HELD: Final = 8
_RESYNC_JUMP: Final = 100  # a jump of more than 2 s of packets is a new stream, not a loss
_CONCEAL_FRAMES: Final = 5  # longer losses are filled with silence
_FADE: Final = 0.6
_LONGEST_PAUSE_S: Final = 60  # a longer jump of the timestamp says nothing
_QUIET: Final = 200  # samples of no more than -44 dBFS: nobody misses a frame of them
_EXACT_S: Final = 0.001


@dataclass(slots=True)
class JitterCounters:
    """What the buffer saw."""

    lost: int = 0
    late: int = 0  # came when their place was filled, or a second time
    duplicate: int = 0
    reordered: int = 0
    resynced: int = 0
    filled: int = 0  # frames of silence put in because nothing came
    thinned: int = 0  # quiet frames taken out, because silence had been put in for late packets
    flooded: int = 0  # frames dropped because the stream was seconds ahead of the time


class JitterBuffer:
    """Restores the order and the length of one caller's audio. G.711 only."""

    def __init__(self, audio: AudioFormat) -> None:
        law: Law = "alaw" if audio.law == "alaw" else "ulaw"
        self.counters = JitterCounters()
        self._rhythm = Rhythm()
        self._rate = audio.rate
        self._frame = audio.bytes_for(PTIME_MS)
        self._fade = attenuation(law, _FADE)
        self._quiet_codes = (
            np.flatnonzero(np.abs(DECODE[law].astype(int)) <= _QUIET).astype(np.uint8).tobytes()
        )
        self._silence = audio.silence
        self._next: int | None = None
        self._timestamp = 0  # of the next packet, if it follows without a pause
        self._ssrc = 0
        self._held: dict[int, RtpPacket] = {}
        self._deadline = 0.0
        self._length = 0  # of the last packet, in samples
        self._last = audio.silence * self._frame

    def push(self, packet: RtpPacket, now: float) -> list[bytes]:
        """Take a packet; return the audio that is due, in order. ``now`` in seconds."""
        seq = packet.seq
        if seq == self._next and not self._held and packet.ssrc == self._ssrc:
            return self._pass(packet, now)
        if self._next is None:
            return self._begin(packet, now)
        ahead = (seq - self._next + 0x8000 & 0xFFFF) - 0x8000
        if packet.ssrc != self._ssrc or abs(ahead) > _RESYNC_JUMP:
            return self._resync(packet, now)
        if ahead < 0:
            self.counters.late += 1
            return []
        if seq in self._held:
            self.counters.duplicate += 1
            return []
        if not self._held:
            self._deadline = now + max(_WAIT_S, _WAIT_PACKETS * self._length / self._rate)
        elif (max(self._ahead(held) for held in self._held)) > ahead:
            self.counters.reordered += 1
        self._held[seq] = packet
        due = self._take(now)
        while len(self._held) > _MAX_HELD:
            due += self._conceal(now)
        return due

    def poll(self, now: float) -> list[bytes]:
        """Return what is due because the wait for a packet is over. Call it every ptime."""
        if self._held:
            if now < self._deadline:
                return []
            due = self._conceal(now)
            self._deadline = now + _WAIT_S / 2  # a second gap behind the first has waited already
            return due
        owed = self._rhythm.owed(now) + _EXACT_S
        length = self._frame / self._rate
        silence = [self._silence * self._frame] * int(owed / length)
        for _ in silence:
            self._rhythm.put_in(length, now)
        self.counters.filled += len(silence)
        return silence

    def idle(self, now: float) -> bool:
        """Return whether ``poll`` has nothing to do yet."""
        return not self._held and self._rhythm.idle(now)

    def late(self, now: float) -> bool:
        """Return whether ``poll`` will put in silence for packets that did not come."""
        return not self._held and self._rhythm.late(now)

    def _begin(self, packet: RtpPacket, now: float) -> list[bytes]:
        self._ssrc = packet.ssrc
        self._timestamp = packet.timestamp
        return self._pass(packet, now)

    def _pass(self, packet: RtpPacket, now: float) -> list[bytes]:
        """Let the next packet through, with the silence that was before it."""
        payload = packet.payload
        rhythm = self._rhythm
        size = len(payload)
        pause = (packet.timestamp - self._timestamp) & 0xFFFFFFFF
        self._next = (packet.seq + 1) & 0xFFFF
        self._timestamp = (packet.timestamp + size) & 0xFFFFFFFF
        self._length = size
        self._last = payload if size <= self._frame else payload[-self._frame :]
        length = size / self._rate
        if not pause and size <= self._frame and rhythm.follows(length, now):
            return [payload]
        rhythm.came(length, now)
        due: list[bytes] = []
        if pause or rhythm.filled:
            known = pause / self._rate if pause <= _LONGEST_PAUSE_S * self._rate else 0.0
            due = self._quiet(rhythm.missing(known, now), now)
        for start in range(0, size, self._frame):
            piece = payload[start : start + self._frame]
            length = len(piece) / self._rate
            if not rhythm.even:
                excess = rhythm.excess((size - start) / self._rate, now)
                if excess >= length - _EXACT_S and not piece.translate(None, self._quiet_codes):
                    rhythm.left_out(length)
                    self.counters.thinned += 1
                    continue
            if rhythm.room(now) < length:
                self.counters.flooded += 1
                continue
            rhythm.gave(length, now)
            due.append(piece)
        return due

    def _ahead(self, seq: int) -> int:
        assert self._next is not None
        return (seq - self._next) & 0xFFFF

    @property
    def waiting(self) -> bool:
        """Return whether packets wait for a missing one."""
        return bool(self._held)

    def _take(self, now: float) -> list[bytes]:
        due = []
        while self._held and self._next in self._held:
            due += self._pass(self._held.pop(self._next), now)
        return due

    def _conceal(self, now: float) -> list[bytes]:
        """Give up the missing packets before the first one held, and release what follows in order."""
        gap = min(self._ahead(seq) for seq in self._held)
        self.counters.lost += gap
        assert self._next is not None
        self._next = (self._next + gap) & 0xFFFF
        first = self._held[self._next]
        # The timestamp knows how long they were, and of a pause that was among them.
        size = (first.timestamp - self._timestamp) & 0xFFFFFFFF
        if not 0 < size <= _LONGEST_PAUSE_S * self._rate:
            size = gap * self._length
        self._timestamp = first.timestamp
        return self._concealment(self._rhythm.lost(size / self._rate, now), now) + self._take(now)

    def _concealment(self, seconds: float, now: float) -> list[bytes]:
        due: list[bytes] = []
        samples = round(seconds * self._rate)
        while samples > 0:
            if len(due) < _CONCEAL_FRAMES:
                self._last = self._last.translate(self._fade)
            else:
                self._last = self._silence * self._frame
            due.append(self._last[:samples])
            samples -= len(self._last)
        self._rhythm.gave(round(seconds * self._rate) / self._rate, now)
        return due

    def _quiet(self, seconds: float, now: float) -> list[bytes]:
        samples = round(seconds * self._rate)
        self._rhythm.gave(samples / self._rate, now)
        whole, rest = divmod(samples, self._frame)
        frames = [self._silence * self._frame] * whole
        return [*frames, self._silence * rest] if rest else frames

    def _resync(self, packet: RtpPacket, now: float) -> list[bytes]:
        self.counters.resynced += 1
        due: list[bytes] = []
        for seq in sorted(self._held, key=self._ahead):
            due += self._begin(self._held[seq], now)
        self._held.clear()
        due += self._quiet(self._rhythm.restarted(len(packet.payload) / self._rate, now), now)
        return due + self._begin(packet, now)
