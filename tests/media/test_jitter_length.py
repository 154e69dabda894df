"""The caller's stream lasts as long as the time, whatever a phone leaves out and a network holds up."""

from __future__ import annotations

import pytest
from callerstream import LOUD, Listener

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, encode
from arivox.media.rtp.jitter import JitterBuffer
from arivox.media.rtp.packet import RtpPacket
from arivox.testing.signal import tone


def packet(seq: int, frame: int, payload: bytes = LOUD * 160) -> RtpPacket:
    """Return packet number ``seq`` whose sound begins ``frame`` ptimes after the start."""
    return RtpPacket(0, False, seq & 0xFFFF, (4294967000 + frame * 160) & 0xFFFFFFFF, 1, payload)


# --- pauses that the timestamps tell of ---


@pytest.mark.parametrize("polled", [True, False])
@pytest.mark.parametrize("pause", [1, 3, 7, 8, 20, 49])
def test_pause_of_a_phone_that_sends_nothing_in_silence(pause: int, polled: bool) -> None:
    buffer = JitterBuffer(ULAW)
    assert buffer.push(packet(0, 0), 100.0) == [LOUD * 160]
    out: list[bytes] = []
    for tick in range(pause if polled else 0):
        out += buffer.poll(100.003 + 0.02 * tick)
    out += buffer.push(packet(1, 1 + pause), 100.02 + 0.02 * pause)
    assert out == [ULAW.silence * 160] * pause + [LOUD * 160]


def test_pause_that_is_no_whole_number_of_frames() -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0, 0), 100.0)
    out = buffer.push(RtpPacket(0, False, 1, (4294967000 + 160 + 200) & 0xFFFFFFFF, 1, LOUD * 160), 100.045)
    assert b"".join(out) == ULAW.silence * 200 + LOUD * 160


def test_wild_timestamps_change_nothing() -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0, 0), 0.0)
    for seq, frame in ((1, -5), (2, 1_000_000), (3, 7), (4, 7)):
        assert buffer.push(packet(seq, frame), 0.02 * seq) == [LOUD * 160]
    assert buffer.counters.lost == 0


def test_timestamps_that_jump_by_a_second_a_packet_make_no_flood() -> None:
    buffer = JitterBuffer(ULAW)
    heard = 0
    for number in range(500):
        heard += sum(map(len, buffer.push(packet(number, 51 * number), 100 + 0.02 * number)))
    assert heard <= 8000 * (500 * 0.02 + 0.3), "a pause takes as long as it takes"
    assert buffer.counters.flooded == 0, "what the caller says is heard all the same"


def test_loss_with_a_pause_before_it_is_not_counted_twice() -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0, 0), 0.0)
    silence = [frame for tick in range(11) for frame in buffer.poll(0.003 + 0.02 * tick)]
    assert len(silence) >= 8
    assert buffer.push(packet(2, 12), 0.24) == []
    out = silence + buffer.poll(0.3)
    assert sum(map(len, out)) == 160 * 12, "what was put in stands for the pause and the lost packet"
    assert out[-1] == LOUD * 160


@pytest.mark.parametrize("ptime", [10, 30, 60, 120])
def test_a_lost_packet_is_made_up_for_in_its_own_length(ptime: int) -> None:
    size = 8 * ptime
    buffer = JitterBuffer(ULAW)
    heard = b"".join(buffer.push(RtpPacket(0, False, 0, 0, 1, LOUD * size), 100.0))
    assert buffer.push(RtpPacket(0, False, 2, 2 * size, 1, LOUD * size), 100 + ptime / 500) == []
    heard += b"".join(buffer.poll(101.0))
    assert len(heard) == 3 * size
    assert heard[-size:] == LOUD * size
    assert buffer.counters.lost == 1


# --- packets that were held up ---


@pytest.mark.parametrize("audio", [ULAW, ALAW])
def test_silence_for_late_packets_is_taken_out_of_quiet_frames(audio: AudioFormat) -> None:
    law: Law = "alaw" if audio is ALAW else "ulaw"
    quiet = encode(tone(300, 0.02, level_dbfs=-50), law)
    loud = encode(tone(300, 0.02, level_dbfs=-20), law)
    listener = Listener(audio)
    listener.hear(0, 0.0, loud)
    for number in range(1, 15):
        listener.hear(number, 0.3, loud)  # the first 14 were held up until now
    silence = audio.silence * 160
    put_in = listener.frames.count(silence)
    assert put_in >= 10
    assert [frame for frame in listener.frames if frame != silence] == [loud] * 15, "no word is lost"
    for number in range(15, 60):
        listener.hear(number, 0.02 * number, quiet)
    assert listener.counters.thinned in (put_in, put_in - 1)
    assert len(listener.heard) / 8000 == pytest.approx(60 * 0.02, abs=0.02)


def test_hold_without_a_jump_of_the_timestamp_costs_no_pause_after_it() -> None:
    """Whoever is taken back from hold is heard with their pauses, from the first word on."""
    quiet = encode(tone(300, 0.02, level_dbfs=-50), "ulaw")
    listener = Listener(ULAW)
    for number in range(100):
        listener.hear(number, 0.02 * number, LOUD * 160)
    for number in range(100, 1000):
        word = number // 50 % 2 == 0
        listener.hear(number, 12 + 0.02 * number, LOUD * 160 if word else quiet)
    assert listener.counters.thinned == 0
    assert len(listener.heard) / 8000 == pytest.approx(12 + 20, abs=0.04)


def test_another_source_after_a_pause_goes_on_in_time() -> None:
    listener = Listener(ULAW)
    for number in range(50):
        listener.hear(number, 0.02 * number, LOUD * 160)
    for number in range(50, 400):
        listener.hear(number, 5 + 0.02 * number, LOUD * 160, ssrc=2)
    assert listener.counters.resynced == 1
    assert len(listener.heard) / 8000 == pytest.approx(13, abs=0.04)


# --- packets of other lengths ---


@pytest.mark.parametrize("ptime", [10, 20, 30, 40, 60, 80, 100, 120])
def test_stream_of_any_ptime_has_no_silence_put_in(ptime: int) -> None:
    listener = Listener(ULAW)
    for number in range(6000 // ptime):
        listener.hear(number, number * ptime / 1000, LOUD * (8 * ptime))
    assert listener.heard == LOUD * (8 * ptime * (6000 // ptime))
    assert all(len(frame) <= 160 for frame in listener.frames)


@pytest.mark.parametrize("ptime", [10, 20, 30, 60, 120])
def test_stream_that_stops_is_heard_as_silent_within_half_a_second(ptime: int) -> None:
    listener = Listener(ULAW)
    for number in range(20):
        listener.hear(number, number * ptime / 1000, LOUD * (8 * ptime))
    said = len(listener.heard)
    stopped = 19 * ptime / 1000
    listener.wait(stopped + 0.5)
    silent = (len(listener.heard) - said) / 8000
    assert 0.5 - ptime / 1000 - 0.03 <= silent <= 0.5
    listener.wait(stopped + 3)
    assert (len(listener.heard) - said) / 8000 == pytest.approx(3 - ptime / 1000, abs=0.03)


def test_stream_that_changes_its_ptime() -> None:
    listener = Listener(ULAW)
    at = 0.0
    said = 0
    for number, ptime in enumerate([120] * 10 + [20] * 60 + [60] * 20 + [10] * 100 + [30] * 40 + [120] * 10):
        at += ptime / 1000
        said += 8 * ptime
        listener.hear(number, at, LOUD * (8 * ptime), timestamp=said - 8 * ptime)
    assert listener.heard == LOUD * said


def test_bursts_are_learned() -> None:
    """A stream that comes in lumps of 240 ms: silence is put in at first, and taken out, and then no more."""
    quiet = encode(tone(300, 0.02, level_dbfs=-50), "ulaw")
    listener = Listener(ULAW)
    for number in range(1500):
        payload = LOUD * 160 if number // 12 % 2 else quiet
        listener.hear(number, 0.02 * (number // 12 * 12 + 12), payload)
        if number == 500:
            filled = listener.counters.filled
    assert listener.counters.filled == filled, "none in the last twenty seconds"
    assert len(listener.heard) / 8000 == pytest.approx(30, abs=0.3)
