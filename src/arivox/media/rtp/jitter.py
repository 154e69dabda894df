"""The jitter buffer of the caller's audio: order restored, losses concealed, nothing delayed without need.

A packet that is next in sequence passes at once. After a gap in the sequence the following packets wait up to
40 ms for the missing one; then the gap is filled by the last frame repeated and faded.

The AI's speech detection needs a stream as long as the time that passes. So a pause of a phone that sends
nothing in silence (a jump of the timestamp alone) is filled with silence, less what the link has put in
meanwhile. And where the link put silence in for packets that were only late, as much is taken out of the next
quiet frames again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import DECODE, Law, attenuation
from arivox.media.rtp.packet import RtpPacket

_WAIT_S: Final = 0.040
_MAX_HELD: Final = 8
_RESYNC_JUMP: Final = 100  # a jump of more than 2 s of packets is a new stream, not a loss
_CONCEAL_FRAMES: Final = 5  # longer losses are filled with silence
_FADE: Final = 0.6
_LONGEST_PAUSE: Final = 60 * 8000  # samples; a longer jump of the timestamp says nothing
_MOST_SILENCE: Final = 50  # frames put in at once
_QUIET: Final = 200  # samples of no more than -44 dBFS: nobody misses a frame of them


@dataclass(slots=True)
class JitterCounters:
    """What the buffer saw."""

    lost: int = 0
    late: int = 0  # came when their place was filled, or a second time
    duplicate: int = 0
    reordered: int = 0
    resynced: int = 0
    thinned: int = 0  # quiet frames taken out, because silence had been put in for late packets


class JitterBuffer:
    """Restores the order and the length of one caller's audio. G.711 only."""

    def __init__(self, audio: AudioFormat) -> None:
        law: Law = "alaw" if audio.law == "alaw" else "ulaw"
        self.counters = JitterCounters()
        self.filled = 0
        """Frames of silence that the link put in since the last packet."""
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
        self._last = audio.silence * audio.bytes_for(20)
        self._surplus = 0  # frames by which the stream is longer than the time

    def push(self, packet: RtpPacket, now: float) -> list[bytes]:
        """Take a packet; return the payloads that are due, in order. ``now`` in seconds."""
        seq = packet.seq
        if seq == self._next and not self._held and packet.ssrc == self._ssrc:
            return self._pass(packet)
        if self._next is None:
            self._begin(packet)
            return [packet.payload]
        ahead = (seq - self._next + 0x8000 & 0xFFFF) - 0x8000
        if packet.ssrc != self._ssrc or abs(ahead) > _RESYNC_JUMP:
            return self._resync(packet)
        if ahead < 0:
            self.counters.late += 1
            return []
        if seq in self._held:
            self.counters.duplicate += 1
            return []
        if not self._held:
            self._deadline = now + _WAIT_S
        elif (max(self._ahead(held) for held in self._held)) > ahead:
            self.counters.reordered += 1
        self._held[seq] = packet
        due = self._take()
        while len(self._held) > _MAX_HELD:
            due += self._conceal()
        return due

    def poll(self, now: float) -> list[bytes]:
        """Return what is due because the wait for a missing packet is over."""
        due: list[bytes] = []
        if self._held and now >= self._deadline:
            due += self._conceal()
            self._deadline = now + _WAIT_S / 2  # a second gap behind the first has waited already
        return due

    @property
    def waiting(self) -> bool:
        """Return whether packets wait for a missing one: then ``poll`` is needed."""
        return bool(self._held)

    def _begin(self, packet: RtpPacket) -> None:
        self._ssrc = packet.ssrc
        self._next = (packet.seq + 1) & 0xFFFF
        self._timestamp = (packet.timestamp + len(packet.payload)) & 0xFFFFFFFF
        self._last = packet.payload
        self.filled = 0

    def _pass(self, packet: RtpPacket) -> list[bytes]:
        """Let the next packet through, with the silence that was before it."""
        payload = packet.payload
        pause = (packet.timestamp - self._timestamp) & 0xFFFFFFFF
        filled = self.filled
        self._next = (packet.seq + 1) & 0xFFFF
        self._timestamp = (packet.timestamp + len(payload)) & 0xFFFFFFFF
        self._last = payload
        if not pause and not filled:
            if self._surplus and not payload.translate(None, self._quiet_codes):
                self._surplus -= 1
                self.counters.thinned += 1
                return []
            return [payload]
        self.filled = 0
        if pause > _LONGEST_PAUSE:
            return [payload]
        missing = pause // len(payload) - filled
        self._surplus += max(-missing, 0)
        return [self._silence * len(payload)] * min(max(missing, 0), _MOST_SILENCE) + [payload]

    def _ahead(self, seq: int) -> int:
        assert self._next is not None
        return (seq - self._next) & 0xFFFF

    def _take(self) -> list[bytes]:
        due = []
        while self._held and self._next in self._held:
            due += self._pass(self._held.pop(self._next))
        return due

    def _conceal(self) -> list[bytes]:
        """Give up the missing packets before the first one held, and release what follows in order."""
        gap = min(self._ahead(seq) for seq in self._held)
        self.counters.lost += gap
        due = []
        for index in range(max(gap - self.filled, 0)):
            if index < _CONCEAL_FRAMES:
                self._last = self._last.translate(self._fade)
            else:
                self._last = self._silence * len(self._last)
            due.append(self._last)
        assert self._next is not None
        self._next = (self._next + gap) & 0xFFFF
        self._timestamp = self._held[self._next].timestamp
        self.filled = 0
        return due + self._take()

    def _resync(self, packet: RtpPacket) -> list[bytes]:
        self.counters.resynced += 1
        due = [self._held[seq].payload for seq in sorted(self._held, key=self._ahead)]
        self._held.clear()
        self._begin(packet)
        return [*due, packet.payload]
