"""The outgoing stream, tick by tick: sample-exact speech, telephone events, and damage on purpose."""

from __future__ import annotations

import random

import numpy as np
import pytest

from arivox.audio import g711
from arivox.errors import ArivoxError
from arivox.testing import signal, talker
from arivox.testing.recording import RtpPacket
from arivox.testing.sdp import G729
from arivox.testing.talker import Talker


def make(**settings: object) -> Talker:
    return Talker(random=random.Random(1), **settings)  # type: ignore[arg-type]  # a test names any field


def run(stream: Talker, ticks: int, start: float = 0.0) -> tuple[list[RtpPacket], list[RtpPacket]]:
    """Tick every 20 ms; return what was said and what went on the wire."""
    said: list[RtpPacket] = []
    wire: list[RtpPacket] = []
    for tick in range(ticks):
        new_said, new_wire = stream.tick(start + tick * 0.02)
        said += new_said
        wire += new_wire
    return said, wire


def order(wire: list[RtpPacket], first: RtpPacket) -> list[int]:
    """The packets on the wire by their place in the stream."""
    return [packet.sequence - first.sequence & 0xFFFF for packet in wire]


def test_silence_flows_from_the_start_with_one_marker() -> None:
    said, wire = run(make(), 3)
    assert wire == said
    assert [packet.marker for packet in said] == [True, False, False]
    assert {packet.payload for packet in said} == {b"\xff" * 160}
    assert order(said, said[0]) == [0, 1, 2]
    assert [packet.timestamp - said[0].timestamp & 0xFFFFFFFF for packet in said] == [0, 160, 320]


def test_sequence_and_timestamp_wrap() -> None:
    stream = make(sequence=0)
    stream.sequence, stream.timestamp = 0xFFFF, 0xFFFFFFFF - 159
    said, _ = run(stream, 2)
    assert [packet.sequence for packet in said] == [0xFFFF, 0]
    assert [packet.timestamp for packet in said] == [0xFFFFFFFF - 159, 0]


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_utterances_follow_each_other_to_the_sample(law: g711.Law) -> None:
    stream = make(law=law)
    sound = signal.tone(1013, 0.1005)
    first, second = stream.play(sound[:404]), stream.play(sound[404:])
    said, _ = run(stream, 7, start=50.0)
    heard = g711.decode(b"".join(packet.payload for packet in said), law)
    assert np.array_equal(heard[: len(sound)], g711.decode(g711.encode(sound, law), law))
    assert np.max(np.abs(heard[len(sound) :])) <= 8, "silence fills the rest of the last packet"
    assert first.first_packet_at == 50.0
    assert first.last_packet_at == second.first_packet_at == pytest.approx(50.04), (
        "they share the third packet"
    )
    assert second.last_packet_at == pytest.approx(50.1)


async def test_utterance_is_done_when_its_last_packet_has_left_and_dropped_when_hushed() -> None:
    stream = make()
    said, dropped = stream.play(signal.tone(500, 0.02)), stream.play(signal.tone(500, 1.0))
    run(stream, 1, start=7.0)
    assert await said.done() == 7.0
    assert not dropped.finished
    stream.hush()
    with pytest.raises(ArivoxError, match="not said to its end"):
        await dropped.done()


def test_law_may_change_in_the_middle_of_an_utterance() -> None:
    stream = make()
    sound = signal.tone(1013, 0.04)
    stream.play(sound)
    (before,), _ = run(stream, 1)
    stream.law = "alaw"
    (after,), _ = run(stream, 1)
    assert (before.payload_type, after.payload_type) == (0, 8)
    assert after.payload == g711.encode(sound[160:], "alaw")


def test_muted_stream_sends_nothing_keeps_its_words_and_its_clock() -> None:
    stream = make()
    (before,), _ = run(stream, 1)
    stream.muted = True
    utterance = stream.play(signal.tone(500, 0.02))
    assert run(stream, 5) == ([], [])
    stream.muted = False
    (after,), _ = run(stream, 1)
    assert utterance.finished
    assert after.marker
    assert order([after], before) == [1]
    assert after.timestamp - before.timestamp & 0xFFFFFFFF == 6 * 160


def test_discontinuous_stream_sends_speech_alone_with_a_marker_on_each_spurt() -> None:
    stream = make(discontinuous=True)
    assert run(stream, 2) == ([], [])
    stream.play(signal.tone(500, 0.04))
    said, _ = run(stream, 5)
    stream.play(signal.tone(500, 0.02))
    said += run(stream, 1)[0]
    assert [packet.marker for packet in said] == [True, False, True]
    assert order(said, said[0]) == [0, 1, 2]


def test_paused_stream_goes_on_with_the_next_timestamp() -> None:
    stream = make()
    before = run(stream, 1)[0][0]
    stream.paused = True
    assert run(stream, 100) == ([], [])
    stream.paused = False
    after = run(stream, 1)[0][0]
    assert after.sequence - before.sequence & 0xFFFF == 1
    assert after.timestamp - before.timestamp & 0xFFFFFFFF == 160


def test_digit_is_a_telephone_event_with_three_ends() -> None:
    stream = make(event_type=96)
    done = stream.press("5", duration_ms=60, gap_ms=40)
    said, wire = run(stream, 6)
    assert wire == said
    events = [packet for packet in said if packet.payload_type == 96]
    assert [packet.payload.hex() for packet in events] == ["050a00a0", "050a0140", *["058a01e0"] * 3]
    assert len({packet.timestamp for packet in events}) == 1
    assert [packet.marker for packet in events] == [True, False, False, False, False]
    assert order(said, said[0]) == list(range(8)), "no sequence number is left out"
    assert [packet.payload_type for packet in said[5:]] == [0, 0, 0]
    assert said[5].timestamp - events[0].timestamp & 0xFFFFFFFF == 480
    assert done.is_set()


def test_digits_that_cannot_be_sent_are_refused() -> None:
    with pytest.raises(ValueError, match="telephone-event"):
        make(event_type=None).press("1", 100, 50)
    with pytest.raises(ValueError, match="substring"):
        make().press("x", 100, 50)


def test_lost_doubled_and_swapped_packets() -> None:
    fates = {2: talker.LOST, 4: talker.DOUBLED, 6: talker.SWAPPED}
    said, wire = run(make(impairment=fates.get), 10)
    assert order(said, said[0]) == list(range(10)), "what is said is not damaged"
    assert order(wire, said[0]) == [0, 1, 3, 4, 4, 5, 7, 6, 8, 9]


def test_burst_leaves_at_once_with_the_packet_after_it() -> None:
    stream = make(impairment=talker.burst(1, 3))
    sizes = [len(stream.tick(tick * 0.02)[1]) for tick in range(6)]
    assert sizes == [1, 0, 0, 0, 4, 1]
    assert talker.fates(talker.LOST, {3})(3) == talker.LOST
    assert talker.fates(talker.LOST, {3})(4) is None


def test_stream_jumps_and_changes_its_source() -> None:
    stream = make()
    (before,), _ = run(stream, 1)
    stream.jump(sequence=1000, timestamp=-80000)
    (jumped,), _ = run(stream, 1)
    assert jumped.sequence - before.sequence & 0xFFFF == 1001
    assert jumped.timestamp - before.timestamp & 0xFFFFFFFF == 160 - 80000 & 0xFFFFFFFF
    stream.change_ssrc()
    (other,), _ = run(stream, 1)
    assert other.ssrc != jumped.ssrc


@pytest.mark.parametrize("pcm", [np.zeros(0, np.int16), np.zeros(10, np.float32), np.zeros((2, 5), np.int16)])
def test_what_is_not_sound_is_refused(pcm: g711.Pcm) -> None:
    with pytest.raises(ValueError, match="int16"):
        make().play(pcm)


def test_codec_that_is_not_spoken_fills_every_packet() -> None:
    phone = make(foreign=G729)
    phone.play(np.full(800, 1000, np.int16))
    packets = [packet for number in range(3) for packet in phone.tick(number / 50)[1]]
    assert [(packet.payload_type, packet.payload) for packet in packets] == [(18, bytes(20))] * 3
    assert packets[1].timestamp - packets[0].timestamp & 0xFFFFFFFF == 160
