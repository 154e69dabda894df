"""RTP packets (RFC 3550, section 5.1), without RTCP."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from arivox.errors import ProtocolError

_HEADER: Final = struct.Struct("!BBHII")
_VERSION_2: Final = 0x80
_PADDING: Final = 0x20
_EXTENSION: Final = 0x10
_MARKER: Final = 0x80

PT_PCMU: Final = 0
PT_PCMA: Final = 8
PT_COMFORT_NOISE: Final = 13  # RFC 3389

# RFC 5761, section 4: RTCP sent to an RTP port shows as these values of the second byte.
_RTCP_TYPES: Final = range(192, 224)


class RtpPacket(NamedTuple):
    """One packet, parsed."""

    payload_type: int
    marker: bool
    seq: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse(data: bytes) -> RtpPacket:
    """Parse one datagram. Raises ProtocolError for anything that is not a whole RTP packet."""
    size = len(data)
    if size < 12:
        raise ProtocolError("RTP", f"{size} bytes are too short for a header")
    first, second, seq, timestamp, ssrc = _HEADER.unpack_from(data)
    if first == _VERSION_2:
        if second in _RTCP_TYPES:
            raise ProtocolError("RTP", "an RTCP packet")
        return RtpPacket(second & 0x7F, second >= _MARKER, seq, timestamp, ssrc, data[12:])
    if first & 0xC0 != _VERSION_2:
        raise ProtocolError("RTP", f"version {first >> 6} instead of 2")
    if second in _RTCP_TYPES:
        raise ProtocolError("RTP", "an RTCP packet")
    start = 12 + 4 * (first & 0x0F)
    if first & _EXTENSION:
        if size < start + 4:
            raise ProtocolError("RTP", "the header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = size
    if first & _PADDING:
        end -= data[-1]
        if data[-1] == 0:
            raise ProtocolError("RTP", "padding of no bytes")
    if start > end:
        raise ProtocolError("RTP", "the header is longer than the packet")
    return RtpPacket(second & 0x7F, second >= _MARKER, seq, timestamp, ssrc, data[start:end])


def build(payload_type: int, marker: bool, seq: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    """Return the datagram of one packet."""
    return _HEADER.pack(_VERSION_2, payload_type | (_MARKER if marker else 0), seq, timestamp, ssrc) + payload
