"""RTP packets: what is built can be read, and whatever comes is read or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.errors import ProtocolError
from arivox.media.rtp.packet import RtpPacket, build, parse

uint16, uint32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
# 64-95 with the marker would look like RTCP (RFC 5761, section 4); no audio uses them.
payload_types = st.one_of(st.integers(0, 63), st.integers(96, 127))


@given(payload_types, st.booleans(), uint16, uint32, uint32, st.binary(max_size=400))
def test_what_is_built_is_read_back(
    payload_type: int, marker: bool, seq: int, timestamp: int, ssrc: int, payload: bytes
) -> None:
    fields = (payload_type, marker, seq, timestamp, ssrc, payload)
    assert parse(build(*fields)) == RtpPacket(*fields)


@given(
    st.integers(0, 127),
    st.lists(uint32, max_size=15),
    st.none() | st.tuples(uint16, st.lists(uint32, max_size=5)),
    st.integers(0, 255),
    st.binary(max_size=60),
)
def test_everything_a_header_may_hold(
    payload_type: int,
    sources: list[int],
    extension: tuple[int, list[int]] | None,
    padding: int,
    payload: bytes,
) -> None:
    # Written field by field from RFC 3550, section 5.1 and 5.3.1.
    first = 2 << 6 | (padding > 0) << 5 | (extension is not None) << 4 | len(sources)
    data = bytes([first, payload_type]) + bytes.fromhex("1234 89abcdef 01020304")
    data += b"".join(source.to_bytes(4, "big") for source in sources)
    if extension is not None:
        profile, words = extension
        data += profile.to_bytes(2, "big") + len(words).to_bytes(2, "big")
        data += b"".join(word.to_bytes(4, "big") for word in words)
    data += payload
    if padding:
        data += bytes(padding - 1) + bytes([padding])
    assert parse(data) == RtpPacket(payload_type, False, 0x1234, 0x89ABCDEF, 0x01020304, payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        packet = parse(data)
    except ProtocolError:
        return
    assert data[0] >> 6 == 2
    assert 0 <= packet.payload_type < 128
    assert len(packet.payload) <= len(data) - 12
    assert packet.payload in data


@given(st.binary(min_size=12, max_size=12).map(lambda tail: b"\xbf" + tail[1:]), st.binary(max_size=80))
def test_headers_full_of_lengths_never_read_past_the_end(header: bytes, rest: bytes) -> None:
    # Version 2, padding, extension, 15 contributing sources: every length is the sender's word.
    try:
        packet = parse(header + rest)
    except ProtocolError:
        return
    assert len(packet.payload) + 12 + 60 + 4 + 1 <= len(header + rest)


MALFORMED = {
    "empty": b"",
    "one_byte_short_of_a_header": bytes.fromhex("8000000100000001000000"),
    "version_1": bytes.fromhex("400000010000000100000001") + bytes(160),
    "version_0_stun": bytes.fromhex("000100002112a442000000000000000000000000"),
    "rtcp_sender_report": bytes.fromhex("80c8000600000001") + bytes(20),
    "rtcp_receiver_report_with_count": bytes.fromhex("81c9000700000001") + bytes(24),
    "padding_longer_than_the_packet": bytes.fromhex("a00000010000000100000001") + b"\x00\x00\xff",
    "padding_of_no_bytes": bytes.fromhex("a00000010000000100000001") + b"\x00\x00\x00",
    "extension_cut_off": bytes.fromhex("900000010000000100000001") + b"\xbe\xde",
    "extension_longer_than_the_packet": bytes.fromhex("900000010000000100000001") + b"\xbe\xde\xff\xff",
    "contributing_sources_cut_off": bytes.fromhex("8f0000010000000100000001") + bytes(59),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="RTP: ") as caught:
        parse(data)
    assert caught.value.protocol == "RTP"


def test_packet_without_payload_is_a_packet() -> None:
    assert parse(bytes.fromhex("808000010000000200000003")) == RtpPacket(0, True, 1, 2, 3, b"")
