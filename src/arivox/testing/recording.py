"""What a listener hears of an RTP stream: packets with their arrival times, placed on one time line."""

from __future__ import annotations

import bisect
import struct
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from arivox.audio import g711
from arivox.audio.g711 import Pcm
from arivox.errors import ProtocolError
from arivox.testing.sdp import LAWS
from arivox.testing.signal import FLOOR_DB, level_dbfs

RATE: Final = 8000
PATIENT_MS: Final = 2000.0
"""A jitter buffer for which no busy machine is too late: for what was said, and not when."""
_HEADER: Final = struct.Struct("!BBHII")


class RtpPacket(NamedTuple):
    """One packet (RFC 3550 section 5.1) and the monotonic time at which it arrived or left, in seconds."""

    time: float
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool
    payload: bytes

    def encode(self) -> bytes:
        """Return the datagram."""
        second = self.payload_type | (0x80 if self.marker else 0)
        return _HEADER.pack(0x80, second, self.sequence, self.timestamp, self.ssrc) + self.payload


def parse_packet(data: bytes, time: float) -> RtpPacket:
    """Parse a datagram that arrived at ``time``. Raise ProtocolError if it is not RTP version 2."""
    if len(data) < 12 or data[0] >> 6 != 2:
        raise ProtocolError("RTP", f"{len(data)} bytes that are not an RTP packet")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    start, end = 12 + 4 * (first & 0x0F), len(data)
    if first & 0x10:
        if end < start + 4:
            raise ProtocolError("RTP", "header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:
        end -= data[-1]
    if start > end:
        raise ProtocolError("RTP", "headers and padding are longer than the packet")
    return RtpPacket(time, second & 0x7F, sequence, timestamp, ssrc, second > 127, data[start:end])


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Sound on a time line: ``pcm`` at 8 kHz whose sample 0 was heard at monotonic time ``started``.

    ``present`` is False for samples that no packet brought; they are silent. ``starts`` and ``arrivals``
    give, for each packet in the order of the time line, its first sample and when it arrived.
    """

    pcm: Pcm
    present: npt.NDArray[np.bool_]
    started: float
    starts: npt.NDArray[np.int64]
    arrivals: npt.NDArray[np.float64]

    @property
    def seconds(self) -> float:
        """The length."""
        return len(self.pcm) / RATE

    def arrival_of(self, sample: int) -> float:
        """Return when the packet arrived that holds ``sample``, or the last one before it.

        Raise ValueError for a sample outside the recording.
        """
        if not 0 <= sample < len(self.pcm):
            raise ValueError(f"sample {sample} is outside a recording of {len(self.pcm)}")
        return float(self.arrivals[int(np.searchsorted(self.starts, sample, "right")) - 1])

    def sample_at(self, time: float) -> int:
        """Return the first sample that arrived at ``time`` or later; the length if none did."""
        later = self.starts[self.arrivals >= time]
        return int(later.min()) if len(later) else len(self.pcm)

    def missing(self) -> list[tuple[float, float]]:
        """Return the stretches that no packet brought, as (start_ms, length_ms)."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], ~self.present, [False])).astype(np.int8)))
        return [
            (float(first) * 1000 / RATE, float(last - first) * 1000 / RATE)
            for first, last in zip(edges[::2], edges[1::2], strict=True)
        ]


def lay_out(packets: Iterable[RtpPacket], jitter_ms: float = 100.0) -> Recording:
    """Place G.711 ``packets`` (in order of arrival) as a listener's jitter buffer of ``jitter_ms`` would.

    A packet belongs where its RTP timestamp says. The stream is taken up anew, at the time of arrival, where
    that cannot be heard as one: the SSRC changes, the timestamp jumps by more than the clock explains, or the
    packet comes more than ``jitter_ms`` after its place. Of packets for the same place the last one stays.
    """
    placed: list[tuple[int, RtpPacket]] = []
    origin = last_time = 0.0
    anchor_position = anchor_timestamp = end = 0
    previous: RtpPacket | None = None
    tolerance = round(jitter_ms * RATE / 1000)
    for packet in packets:
        if packet.payload_type not in LAWS or not packet.payload:
            continue
        if previous is None:
            origin = packet.time
            anchor_timestamp = packet.timestamp
        clock = round((packet.time - origin) * RATE)
        position = anchor_position + _signed(packet.timestamp - anchor_timestamp)
        if previous is not None:
            step = _signed(packet.timestamp - previous.timestamp)
            due = _signed16(packet.sequence - previous.sequence) * len(previous.payload)
            jumped = step != due and abs(step - (packet.time - last_time) * RATE) > tolerance
            if packet.ssrc != previous.ssrc or jumped:
                # A seam within the jitter is heard as none: the buffer evens it out.
                position = end if abs(clock - end) <= tolerance else max(clock, 0)
                anchor_position, anchor_timestamp = position, packet.timestamp
            elif clock - position > tolerance:
                position = clock
                anchor_position, anchor_timestamp = position, packet.timestamp
        placed.append((position, packet))
        end = max(end, position + len(packet.payload))
        # A packet out of order must not make the next one in order look like a jump.
        if (
            previous is None
            or packet.ssrc != previous.ssrc
            or _signed16(packet.sequence - previous.sequence) > 0
        ):
            previous, last_time = packet, packet.time
    # The first packets may have come in the wrong order.
    lead = -min((position for position, _ in placed), default=0)
    placed = [(position + lead, packet) for position, packet in placed]
    pcm = np.zeros(end + lead, np.int16)
    present = np.zeros(end + lead, np.bool_)
    for position, packet in placed:
        stop = position + len(packet.payload)
        pcm[position:stop] = g711.decode(packet.payload, LAWS[packet.payload_type])
        present[position:stop] = True
    placed.sort(key=lambda item: item[0])
    return Recording(
        pcm=pcm,
        present=present,
        started=origin - lead / RATE,
        starts=np.array([position for position, _ in placed], np.int64),
        arrivals=np.array([packet.time for _, packet in placed], np.float64),
    )


def packet_level_dbfs(packet: RtpPacket) -> float:
    """Return the level of one packet; FLOOR_DB where it is not G.711."""
    law = LAWS.get(packet.payload_type)
    return FLOOR_DB if law is None else level_dbfs(g711.decode(packet.payload, law))


def between(packets: list[RtpPacket], start: float, stop: float) -> list[RtpPacket]:
    """Return the part of ``packets``, which are in order of time, with start <= time < stop."""
    times = [packet.time for packet in packets]
    return packets[bisect.bisect_left(times, start) : bisect.bisect_left(times, stop)]


def save_stereo(path: Path | str, left: Recording, right: Recording) -> None:
    """Write both recordings to a WAV file, 16 bit at 8 kHz, aligned in time."""
    filled = [recording for recording in (left, right) if len(recording.pcm)]
    origin = min((recording.started for recording in filled), default=0.0)
    tracks = []
    for recording in (left, right):
        lead = round((recording.started - origin) * RATE) if len(recording.pcm) else 0
        tracks.append(np.concatenate([np.zeros(lead, np.int16), recording.pcm]))
    length = max(map(len, tracks))
    frames = np.stack([np.pad(track, (0, length - len(track))) for track in tracks], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(frames.astype("<i2").tobytes())


def _signed(difference: int) -> int:
    """Return a difference of 32-bit timestamps as the nearest signed number."""
    return (difference + 0x80000000 & 0xFFFFFFFF) - 0x80000000


def _signed16(difference: int) -> int:
    return (difference + 0x8000 & 0xFFFF) - 0x8000
