"""The outgoing side of a test phone, as a pure core: what is queued becomes one RTP packet a tick.

It speaks sample-exactly, keeps silence in between, sends digits as telephone events (RFC 4733), and can spoil
its own stream in ways that a test repeats at will.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from arivox.audio import g711
from arivox.audio.g711 import Law, Pcm
from arivox.errors import ArivoxError
from arivox.testing.listener import DIGITS
from arivox.testing.recording import RATE, RtpPacket
from arivox.testing.sdp import PAYLOAD_TYPES, Foreign

# RFC 4733 section 2.5.1.4: the last packet of an event goes out three times.
_END_PACKETS: Final = 3
_EVENT_VOLUME: Final = 10


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one packet: ``copies`` of it (0 loses it), ``delay_packets`` later than its turn."""

    copies: int = 1
    delay_packets: int = 0


LOST: Final = Fate(copies=0)
DOUBLED: Final = Fate(copies=2)
SWAPPED: Final = Fate(delay_packets=1)

# From the index of a packet in the stream (0 is the first) to its fate.
Impairment = Callable[[int], Fate | None]


def fates(fate: Fate, indexes: Collection[int]) -> Impairment:
    """Give the packets of ``indexes`` this ``fate``."""
    return lambda index: fate if index in indexes else None


def burst(first: int, count: int) -> Impairment:
    """Hold ``count`` packets from ``first`` on and let them go at once, with the packet after them."""
    return lambda index: Fate(delay_packets=first + count - index) if first <= index < first + count else None


class Utterance:
    """Something a phone says: when its first and last packets left, in monotonic seconds, or None before."""

    def __init__(self, pcm: Pcm) -> None:
        self.pcm = pcm
        self.first_packet_at: float | None = None
        self.last_packet_at: float | None = None
        self.dropped = False
        self._finished = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Utterance {len(self.pcm) / RATE:.2f}s from={self.first_packet_at} to={self.last_packet_at}>"

    @property
    def finished(self) -> bool:
        """Whether it was said to the end or dropped."""
        return self._finished.is_set()

    async def done(self) -> float:
        """Wait until the last packet has left and return when. Raise ArivoxError if it was dropped before."""
        await self._finished.wait()
        if self.dropped or self.last_packet_at is None:
            raise ArivoxError(f"{self!r} was not said to its end: the call ended or the phone was hushed")
        return self.last_packet_at

    def _sent(self, now: float, *, last: bool) -> None:
        if self.first_packet_at is None:
            self.first_packet_at = now
        if last:
            self.last_packet_at = now
            self._finished.set()

    def _drop(self) -> None:
        self.dropped = True
        self._finished.set()


@dataclass(slots=True)
class _Digit:
    """A telephone event on its way, or the pause after it (``event`` None)."""

    event: int | None
    packets: int
    sent: int = 0
    timestamp: int = 0


@dataclass(slots=True)
class _Speech:
    utterance: Utterance
    law: Law | None = None
    encoded: bytes = b""
    position: int = 0


@dataclass(slots=True)
class Talker:
    """One RTP stream of ``law``, a packet of ``ptime_ms`` for every ``tick``.

    ``random`` makes its identifiers. ``muted`` sends nothing at all, and what is queued waits.
    ``discontinuous`` sends speech but no silence, as a phone with silence suppression. In both the timestamp
    goes on with the clock. ``paused`` sends nothing either, and the timestamp stands still meanwhile, as at
    trunks that put a call on hold. With ``foreign`` nothing is spoken: its packet is sent instead.
    """

    law: Law = "ulaw"
    event_type: int | None = 101
    ptime_ms: int = 20
    random: random.Random = field(default_factory=random.Random)
    muted: bool = False
    discontinuous: bool = False
    paused: bool = False
    impairment: Impairment | None = None
    foreign: Foreign | None = None
    ssrc: int = 0
    sequence: int = 0
    timestamp: int = 0
    packets: int = 0
    _speech: deque[_Speech] = field(default_factory=deque)
    _digits: deque[_Digit] = field(default_factory=deque)
    _held: list[tuple[int, RtpPacket]] = field(default_factory=list)
    _spurt: bool = False
    _digits_done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.change_ssrc()
        self._digits_done.set()

    @property
    def samples(self) -> int:
        """Samples in a packet."""
        return self.ptime_ms * RATE // 1000

    def change_ssrc(self) -> None:
        """Go on as a new source: new SSRC, sequence and timestamp."""
        self.ssrc = self.random.getrandbits(32)
        self.sequence = self.random.getrandbits(16)
        self.timestamp = self.random.getrandbits(32)

    def jump(self, *, sequence: int = 0, timestamp: int = 0) -> None:
        """Move the next packet's sequence and timestamp by so much, forward or back."""
        self.sequence = self.sequence + sequence & 0xFFFF
        self.timestamp = self.timestamp + timestamp & 0xFFFFFFFF

    def play(self, pcm: Pcm) -> Utterance:
        """Queue ``pcm`` (int16, 8 kHz) right behind what is queued already."""
        if pcm.dtype != np.int16 or pcm.ndim != 1 or not len(pcm):
            raise ValueError(
                f"a phone plays int16 of shape (n,), n > 0, not {pcm.dtype} of shape {pcm.shape}"
            )
        utterance = Utterance(pcm)
        self._speech.append(_Speech(utterance))
        return utterance

    def hush(self) -> None:
        """Drop what is queued; packets already delayed still go out."""
        for speech in self._speech:
            speech.utterance._drop()
        self._speech.clear()
        self._digits.clear()
        self._digits_done.set()

    def press(self, digits: str, duration_ms: int, gap_ms: int) -> asyncio.Event:
        """Queue ``digits`` (0-9 * # A-D) and return the event that all are sent. Speech waits for them.

        Raise ValueError for another character, or where telephone events were not agreed on.
        """
        if self.event_type is None:
            raise ValueError("the call has no telephone-event payload type, so no digit can be sent")
        for digit in digits.upper():
            event = DIGITS.index(digit)
            self._digits.append(_Digit(event, max(1, duration_ms // self.ptime_ms)))
            self._digits.append(_Digit(None, max(1, gap_ms // self.ptime_ms)))
        if self._digits:
            self._digits_done.clear()
        return self._digits_done

    def restart(self) -> None:
        """Begin the stream of another call. What is queued is kept."""
        self.change_ssrc()
        self.packets = 0
        self._held.clear()
        self._spurt = False

    def tick(self, now: float) -> tuple[list[RtpPacket], list[RtpPacket]]:
        """Return the packets said at ``now`` and those to put on the wire.

        One is said, or none where the stream pauses, or the three that end a digit.
        """
        if self.paused:
            return [], []
        payload_type = self.foreign.payload_type if self.foreign is not None else PAYLOAD_TYPES[self.law]
        payload, timestamp = b"", self.timestamp
        marker, repeats = False, 1
        if not self.muted:
            if self._digits and self._digits[0].event is not None:
                payload_type = self.event_type or 0
                payload, timestamp, marker, repeats = self._next_event(self._digits[0].event)
                self._spurt = False
            else:
                if self._digits:
                    self._pass_gap()
                payload = self._next_audio(now)
                marker = bool(payload) and not self._spurt
        self._spurt = bool(payload) and payload_type != self.event_type
        self.timestamp = self.timestamp + self.samples & 0xFFFFFFFF
        said: list[RtpPacket] = []
        wire: list[RtpPacket] = []
        for _ in range(repeats if payload else 0):
            packet = RtpPacket(now, payload_type, self.sequence, timestamp, self.ssrc, marker, payload)
            self.sequence = self.sequence + 1 & 0xFFFF
            said.append(packet)
            wire += self._submit(packet)
        return said, wire

    def _submit(self, packet: RtpPacket) -> list[RtpPacket]:
        index = self.packets
        self.packets += 1
        fate = (self.impairment(index) if self.impairment else None) or Fate()
        if fate.delay_packets:
            self._held += [(index + fate.delay_packets, packet)] * fate.copies
            return self._release()
        # The delayed ones leave after the packet whose turn it is: that is what makes a swap.
        return [packet] * fate.copies + self._release()

    def _release(self) -> list[RtpPacket]:
        last = self.packets - 1
        due = [packet for index, packet in self._held if index <= last]
        self._held = [(index, packet) for index, packet in self._held if index > last]
        return due

    def _next_event(self, event: int) -> tuple[bytes, int, bool, int]:
        digit = self._digits[0]
        if digit.sent == 0:
            digit.timestamp = self.timestamp
        digit.sent += 1
        last = digit.sent == digit.packets
        duration = min(digit.sent * self.samples, 0xFFFF)
        payload = bytes([event, _EVENT_VOLUME | (0x80 if last else 0)]) + duration.to_bytes(2, "big")
        if last:
            self._digits.popleft()
        return payload, digit.timestamp, digit.sent == 1, _END_PACKETS if last else 1

    def _pass_gap(self) -> None:
        gap = self._digits[0]
        gap.sent += 1
        if gap.sent == gap.packets:
            self._digits.popleft()
            if not self._digits:
                self._digits_done.set()

    def _next_audio(self, now: float) -> bytes:
        if self.foreign is not None:
            return self.foreign.packet
        payload = bytearray()
        while self._speech and len(payload) < self.samples:
            speech = self._speech[0]
            if speech.law != self.law:
                speech.law, speech.encoded = self.law, g711.encode(speech.utterance.pcm, self.law)
            piece = speech.encoded[speech.position : speech.position + self.samples - len(payload)]
            speech.position += len(piece)
            payload += piece
            last = speech.position >= len(speech.encoded)
            speech.utterance._sent(now, last=last)
            if last:
                self._speech.popleft()
        if not payload and self.discontinuous:
            return b""
        return bytes(payload.ljust(self.samples, g711.SILENCE[self.law]))
