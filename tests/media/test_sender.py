"""The RTP stream towards Asterisk: continuous numbers, true timestamps, one marker a talk spurt."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.media.rtp.packet import RtpPacket, parse
from arivox.media.rtp.sender import RtpSender

FRAME = b"\x01" * 160


def sender_at(seq: int, timestamp: int) -> RtpSender:
    sender = RtpSender(ULAW)
    sender._seq, sender._timestamp = seq, timestamp
    return sender


@settings(max_examples=60)
@given(
    seq=st.integers(0, 0xFFFF) | st.integers(65530, 65535),
    timestamp=st.integers(0, 0xFFFFFFFF) | st.integers(2**32 - 400, 2**32 - 1),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=60),
)
@example(seq=65535, timestamp=2**32 - 100, steps=[(False, 0)] * 3)
@example(seq=65535, timestamp=2**32 - 100, steps=[(True, 1), (True, 1)])
def test_sequence_and_timestamp_never_jump(seq: int, timestamp: int, steps: list[tuple[bool, int]]) -> None:
    sender = sender_at(seq, timestamp)
    packets: list[RtpPacket] = []
    skips: list[int] = []
    for voice, skip in steps:
        if skip:
            sender.skip(skip * 160)
        skips.append(skip)
        packets.append(parse(sender.packet(FRAME, voice=voice)))
    assert packets[0].seq == seq
    assert packets[0].timestamp == (timestamp + skips[0] * 160) % 2**32
    for (before, after), skip in zip(pairwise(packets), skips[1:], strict=True):
        assert (after.seq - before.seq) % 2**16 == 1, "a stall is no loss: the numbers go on"
        assert (after.timestamp - before.timestamp) % 2**32 == 160 * (1 + skip)
        assert after.ssrc == before.ssrc
    voices = [voice for voice, _ in steps]
    starts = [voice and not before for before, voice in pairwise([False, *voices])]
    assert [packet.marker for packet in packets] == starts
    counters = sender.counters
    assert (counters.packets, counters.voice) == (len(steps), sum(voices))
    assert (counters.spurts, counters.bytes) == (sum(starts), 160 * len(steps))


@pytest.mark.parametrize(("audio", "payload_type"), [(ULAW, 0), (ALAW, 8)])
def test_payload_type_is_the_static_one(audio: AudioFormat, payload_type: int) -> None:
    packet = parse(RtpSender(audio).packet(FRAME, voice=True))
    assert (packet.payload_type, packet.payload, packet.marker) == (payload_type, FRAME, True)


def test_streams_begin_at_random() -> None:
    firsts = [parse(RtpSender(ULAW).packet(FRAME, voice=False)) for _ in range(20)]
    assert len({packet.ssrc for packet in firsts}) == 20
    assert len({packet.seq for packet in firsts}) > 10
    assert len({packet.timestamp for packet in firsts}) > 10
