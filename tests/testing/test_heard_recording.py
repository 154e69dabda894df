"""Packets on a time line, as a listener hears them."""

from __future__ import annotations

import random
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.audio import g711
from arivox.errors import ProtocolError
from arivox.testing import recording, signal
from arivox.testing.recording import RtpPacket, lay_out, parse_packet

FREQ = 1013.0
START = 1000.0


def stream(
    seconds: float = 1.0, start: float = START, ssrc: int = 7, timestamp: int = 0xFFFFFF00
) -> list[RtpPacket]:
    """A tone in packets of 20 ms that arrive on time; sequence and timestamp wrap on the way."""
    data = g711.encode(signal.tone(FREQ, seconds), "ulaw")
    return [
        RtpPacket(
            start + index * 0.02,
            0,
            65530 + index & 0xFFFF,
            timestamp + 160 * index & 0xFFFFFFFF,
            ssrc,
            index == 0,
            data[160 * index : 160 * index + 160],
        )
        for index in range(len(data) // 160)
    ]


def shifted(packets: list[RtpPacket], seconds: float = 0.0, timestamp: int = 0) -> list[RtpPacket]:
    return [
        packet._replace(time=packet.time + seconds, timestamp=packet.timestamp + timestamp & 0xFFFFFFFF)
        for packet in packets
    ]


def test_stream_on_time_is_heard_whole() -> None:
    heard = lay_out(stream())
    assert heard.started == START
    assert heard.seconds == 1.0
    assert signal.dropouts(heard.pcm, FREQ) == []
    assert heard.missing() == []
    assert heard.arrival_of(0) == START
    assert heard.arrival_of(8 * 500 + 1) == pytest.approx(START + 0.5)
    assert heard.sample_at(START + 0.5 - 1e-6) == 4000
    assert heard.sample_at(START + 9) == 8000
    with pytest.raises(ValueError, match="8000"):
        heard.arrival_of(8000)


def test_lost_packet_is_silence_of_its_length() -> None:
    packets = stream()
    del packets[10:12]
    heard = lay_out(packets)
    assert heard.missing() == [(200.0, 40.0)]
    assert heard.arrival_of(8 * 210) == pytest.approx(START + 0.18), "the last that came before"
    assert [length for _, length in signal.dropouts(heard.pcm, FREQ)] == [pytest.approx(40, abs=2)]


def test_jitter_order_and_copies_are_not_heard() -> None:
    clean = lay_out(stream()).pcm
    rng = random.Random(1)
    packets = [packet._replace(time=packet.time + rng.uniform(0, 0.09)) for packet in stream()]
    packets += packets[20:25]
    packets.sort(key=lambda packet: packet.time)
    heard = lay_out(packets)
    assert np.array_equal(heard.pcm, clean)


@given(st.permutations(range(6)), st.integers(1, 40))
def test_order_of_arrival_within_the_jitter_changes_nothing(permutation: list[int], at: int) -> None:
    packets = stream()
    times = [packet.time for packet in packets]
    packets[at : at + 6] = [packets[at + index] for index in permutation]
    packets = [packet._replace(time=time) for packet, time in zip(packets, times, strict=True)]
    assert np.array_equal(lay_out(packets).pcm, lay_out(stream()).pcm)


def test_pause_with_running_timestamps_is_silence_of_its_length() -> None:
    packets = stream()
    heard = lay_out(packets[:20] + shifted(packets[20:], 0.5, 4000))
    assert heard.missing() == [(400.0, 500.0)]
    assert heard.seconds == 1.5


def test_pause_that_the_timestamps_do_not_show_is_heard_all_the_same() -> None:
    packets = stream()
    heard = lay_out(packets[:20] + shifted(packets[20:], 0.5))
    ((place, length),) = heard.missing()
    assert (place, round(length)) == (400.0, 500)
    assert lay_out(packets[:20] + shifted(packets[20:], 0.05)).missing() == [], "within the jitter"


@pytest.mark.parametrize("jump", [80000, -80000, 123])
def test_jump_of_the_timestamps_without_time_passing_is_not_heard(jump: int) -> None:
    packets = stream()
    heard = lay_out(packets[:20] + shifted(packets[20:], 0.0, jump))
    if abs(jump) > 800:
        assert np.array_equal(heard.pcm, lay_out(packets).pcm)
    else:
        assert heard.missing() == [(400.0, jump / 8)], "a small one is heard as it says"


def test_another_source_goes_on_where_the_first_one_ended() -> None:
    first, second = stream(0.4), stream(0.4, START + 0.402, ssrc=8, timestamp=5)
    assert lay_out(first + second).missing() == []
    ((place, length),) = lay_out(first + shifted(second, 0.3)).missing()
    assert (place, round(length)) == (400.0, 302)


def test_burst_is_heard_in_its_own_time() -> None:
    packets = [packet._replace(time=START) for packet in stream()]
    assert np.array_equal(lay_out(packets).pcm, lay_out(stream()).pcm)


def test_other_payloads_are_passed_over() -> None:
    packets = stream()
    event = packets[10]._replace(payload_type=101, payload=b"\x05\x0a\x00\xa0")
    comfort = packets[12]._replace(payload_type=13, payload=b"\x40")
    packets[10], packets[12] = event, comfort
    assert lay_out(packets).missing() == [(200.0, 20.0), (240.0, 20.0)]
    assert recording.packet_level_dbfs(comfort) == signal.FLOOR_DB
    assert recording.packet_level_dbfs(packets[0]) == pytest.approx(-12, abs=0.3)


def test_nothing_is_an_empty_recording() -> None:
    heard = lay_out([])
    assert (heard.seconds, heard.missing(), heard.sample_at(0.0)) == (0.0, [], 0)


def test_between_takes_the_packets_of_a_span_of_time() -> None:
    packets = stream()
    assert recording.between(packets, START + 0.1, START + 0.2) == packets[5:10]


def test_both_sides_are_saved_aligned_in_time(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    recording.save_stereo(path, lay_out(stream(0.5, START + 0.25)), lay_out(stream(0.5, START)))
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert signal.active_segments(frames[:, 0])[0][0] == pytest.approx(250, abs=1)
    assert signal.onset_ms(frames[:, 1]) == pytest.approx(0, abs=1)
    assert len(frames) == 6000


def test_packet_survives_encoding() -> None:
    packet = stream()[0]
    assert parse_packet(packet.encode(), START) == packet


def test_packet_with_all_that_rfc_3550_allows_is_read() -> None:
    data = (
        bytes.fromhex("b2800001 00000002 00000003".replace(" ", ""))
        + bytes(8)  # two contributing sources
        + bytes.fromhex("bede0001") + bytes(4)  # header extension of one word
        + b"abc" + b"\0\0\3"  # payload and padding
    )  # fmt: skip
    assert parse_packet(data, 1.0) == RtpPacket(1.0, 0, 1, 2, 3, True, b"abc")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" * 11,
        b"\x40" + bytes(11),
        b"\x8f" + bytes(11),
        b"\x90" + bytes(13),
        b"\xa0" + bytes(10) + b"\xff",
    ],
)
def test_malformed_packet_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_packet(data, 0.0)


@given(st.binary(max_size=64))
def test_garbage_parses_or_raises_protocol_error(data: bytes) -> None:
    try:
        parse_packet(data, 0.0)
    except ProtocolError:
        pass
