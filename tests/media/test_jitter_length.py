"""The caller's stream lasts as long as the time, whatever a phone leaves out and a network holds up."""

from __future__ import annotations

import pytest

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, encode
from arivox.media.rtp.jitter import JitterBuffer
from arivox.media.rtp.packet import RtpPacket
from arivox.testing.signal import tone

LOUD = b"\x10" * 160


def packet(seq: int, frame: int, payload: bytes = LOUD) -> RtpPacket:
    """Return packet number ``seq`` whose sound begins ``frame`` ptimes after the start."""
    return RtpPacket(0, False, seq & 0xFFFF, (4294967000 + frame * 160) & 0xFFFFFFFF, 1, payload)


@pytest.mark.parametrize(("pause", "filled"), [(3, 0), (3, 3), (20, 20), (20, 17), (3, 5)])
def test_pause_of_a_phone_that_sends_nothing_in_silence(pause: int, filled: int) -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0, 0), 0.0)
    buffer.filled = filled
    out = buffer.push(packet(1, 1 + pause), 1.0)
    assert out == [ULAW.silence * 160] * max(pause - filled, 0) + [LOUD]


@pytest.mark.parametrize("audio", [ULAW, ALAW])
def test_silence_for_late_packets_is_taken_out_of_quiet_frames(audio: AudioFormat) -> None:
    law: Law = "alaw" if audio is ALAW else "ulaw"
    quiet = encode(tone(300, 0.02, level_dbfs=-50), law)
    loud = encode(tone(300, 0.02, level_dbfs=-20), law)
    buffer = JitterBuffer(audio)
    buffer.push(packet(0, 0, loud), 0.0)
    buffer.filled = 3  # the link put silence in; the packets were only late
    out: list[bytes] = []
    for number in range(1, 11):
        out += buffer.push(packet(number, number, loud), 0.2)
    assert out == [loud] * 10, "no word is lost"
    out = []
    for number in range(11, 21):
        out += buffer.push(packet(number, number, quiet), 0.4)
    assert out == [quiet] * 7
    assert buffer.counters.thinned == 3


def test_wild_timestamps_change_nothing() -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0, 0), 0.0)
    for seq, frame in ((1, -5), (2, 1_000_000), (3, 7), (4, 7)):
        assert buffer.push(packet(seq, frame), 0.0) == [LOUD]
    assert buffer.counters.lost == 0


def test_loss_with_a_pause_before_it_is_not_counted_twice() -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0, 0), 0.0)
    buffer.filled = 10
    assert buffer.push(packet(2, 12), 0.2) == []
    out = buffer.poll(0.3)
    assert out == [LOUD], "the ten frames put in stand for the pause and the lost packet"
