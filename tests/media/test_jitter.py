"""The jitter buffer: order restored, nothing twice, and a stream as long as the time it covers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arivox.audio.format import ALAW, ULAW
from arivox.audio.g711 import decode
from arivox.media.rtp.jitter import JitterBuffer
from arivox.media.rtp.packet import RtpPacket

LOUD = b"\x10"  # a loud sample, the filler of payloads: what conceals a loss is quieter


def payload(number: int) -> bytes:
    """Return a payload that no other packet has and that concealment cannot produce."""
    return b"\x00\x80" + number.to_bytes(4, "big") + LOUD * 154


def packet(number: int, *, seq: int = 0, ssrc: int = 1) -> RtpPacket:
    return RtpPacket(0, False, (seq + number) & 0xFFFF, number * 160 & 0xFFFFFFFF, ssrc, payload(number))


def feed(buffer: JitterBuffer, numbers: list[int], *, seq: int = 0, step: float = 0.02) -> list[bytes]:
    """Push packets 20 ms apart, polling every 20 ms, then poll until nothing waits."""
    out: list[bytes] = []
    now = 100.0
    for number in numbers:
        out += buffer.push(packet(number, seq=seq), now)
        now += step
        out += buffer.poll(now)
    while buffer.waiting:
        now += 0.02
        out += buffer.poll(now)
    return out


def numbers(frames: list[bytes]) -> list[int | None]:
    """Return the packets' numbers, None for frames that conceal."""
    return [
        int.from_bytes(frame[2:6], "big") if frame == payload(int.from_bytes(frame[2:6], "big")) else None
        for frame in frames
    ]


def test_packets_in_order_pass_at_once() -> None:
    buffer = JitterBuffer(ULAW)
    for number in range(300):
        assert buffer.push(packet(number, seq=65400), 0.02 * number) == [payload(number)]
        assert not buffer.waiting
    assert buffer.counters.lost == buffer.counters.late == buffer.counters.resynced == 0


def test_swapped_packets_are_put_right() -> None:
    buffer = JitterBuffer(ULAW)
    assert numbers(feed(buffer, [0, 2, 1, 3, 5, 6, 4, 7])) == list(range(8))
    assert (buffer.counters.lost, buffer.counters.reordered) == (0, 2)


def test_duplicates_play_once() -> None:
    buffer = JitterBuffer(ULAW)
    assert numbers(feed(buffer, [0, 0, 1, 1, 3, 3, 2, 2, 4])) == [0, 1, 2, 3, 4]
    assert buffer.counters.late + buffer.counters.duplicate == 4


def test_a_lost_packet_costs_40_ms_and_is_filled() -> None:
    buffer = JitterBuffer(ULAW)
    buffer.push(packet(0), 10.0)
    assert buffer.push(packet(2), 10.040) == []
    assert buffer.poll(10.079) == []
    filled, following = buffer.poll(10.081)
    assert following == payload(2)
    assert len(filled) == 160
    level, before = np.abs(decode(filled, "ulaw").astype(int)), np.abs(decode(payload(0), "ulaw").astype(int))
    assert 0 < level.max() < before.max(), "the frame before the gap, quieter"
    assert buffer.counters.lost == 1
    assert buffer.push(packet(1), 10.1) == [], "its place is taken"
    assert buffer.counters.late == 1


@pytest.mark.parametrize("audio", [ULAW, ALAW])
def test_a_long_loss_fades_to_silence(audio: object) -> None:
    law = ULAW if audio is ULAW else ALAW
    buffer = JitterBuffer(law)
    out = feed(buffer, [0, 41])
    assert len(out) == 42
    levels = [
        int(np.abs(decode(frame, "ulaw" if law is ULAW else "alaw").astype(int)).max()) for frame in out
    ]
    assert all(later <= earlier for earlier, later in pairwise(levels[:41]))
    assert all(frame == law.silence * 160 for frame in out[6:41])


def test_a_burst_behind_a_gap_is_not_held_for_ever() -> None:
    buffer = JitterBuffer(ULAW)
    out = buffer.push(packet(0), 0.0)
    for number in range(2, 30):  # all in the same instant: no poll can help
        out += buffer.push(packet(number), 0.0)
    assert numbers(out) == [0, None, *range(2, 30)]


def test_new_source_begins_anew_and_what_was_held_is_not_lost() -> None:
    buffer = JitterBuffer(ULAW)
    out = buffer.push(packet(0), 0.0) + buffer.push(packet(2), 0.0)
    out += buffer.push(packet(7, seq=40000, ssrc=2), 0.02)
    out += buffer.push(packet(8, seq=40000, ssrc=2), 0.04)
    assert numbers(out) == [0, 2, 7, 8]
    assert buffer.counters.resynced == 1
    assert not buffer.waiting


@pytest.mark.parametrize("seq", [0, 1, 2, 65535, 30])
def test_new_source_is_heard_whatever_its_number(seq: int) -> None:
    buffer = JitterBuffer(ULAW)
    out = buffer.push(packet(0), 0.0) + buffer.push(packet(1), 0.02)
    out += buffer.push(packet(2, seq=seq - 2, ssrc=2), 0.04)
    out += buffer.push(packet(3, seq=seq - 2, ssrc=2), 0.06)
    assert numbers(out) == [0, 1, 2, 3]


@pytest.mark.parametrize("jump", [101, 1000, 30000, -101, -1000, -30000])
def test_large_jump_is_a_new_stream_not_a_loss(jump: int) -> None:
    buffer = JitterBuffer(ULAW)
    out = buffer.push(packet(0, seq=50), 0.0)
    out += buffer.push(packet(1, seq=50 + jump), 0.02)
    out += buffer.push(packet(2, seq=50 + jump), 0.04)
    assert numbers(out) == [0, 1, 2]
    assert (buffer.counters.resynced, buffer.counters.lost) == (1, 0)


@settings(max_examples=150)
@given(
    start=st.one_of(st.integers(0, 0xFFFF), st.integers(65400, 65535)),
    lost=st.sets(st.integers(1, 118), max_size=40),
    doubled=st.lists(st.integers(1, 118), max_size=20),
    moves=st.lists(st.tuples(st.integers(1, 118), st.integers(1, 12)), max_size=15),
    burst=st.booleans(),
)
@example(start=65533, lost={1, 2, 3, 4, 5}, doubled=[], moves=[], burst=False)
@example(start=65530, lost={5}, doubled=[4, 6], moves=[(6, 2)], burst=True)
def test_whatever_the_network_does_the_stream_stays_true(
    start: int, lost: set[int], doubled: list[int], moves: list[tuple[int, int]], burst: bool
) -> None:
    # Packets 0 and 119 frame the test; between them some are lost, doubled, and moved back.
    sent = [number for number in range(120) if number not in lost]
    for number, by in moves:
        if number in sent:
            at = sent.index(number)
            sent.insert(min(at + by, len(sent) - 1), sent.pop(at))
    for number in doubled:
        if number in sent:
            sent.insert(min(sent.index(number) + number % 7, len(sent) - 1), number)
    buffer = JitterBuffer(ULAW)
    out = feed(buffer, sent, seq=start, step=0.0 if burst else 0.02)
    found = numbers(out)
    real = [number for number in found if number is not None]
    assert real == sorted(set(real)), "in order, each at most once"
    assert len(out) == 120, "as many frames as the time has"
    assert all(number is None or number == at for at, number in enumerate(found)), "each in its place"
    counters = buffer.counters
    assert counters.lost == 120 - len(real)
    assert counters.late + counters.duplicate == len(sent) - len(real)
    assert counters.resynced == 0


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF) | st.integers(0, 40) | st.integers(65500, 65535),
            st.integers(0, 1),
            st.binary(max_size=3),
            st.floats(-1, 1),
        ),
        max_size=60,
    )
)
def test_any_packets_at_any_times_never_break_it(stream: list[tuple[int, int, bytes, float]]) -> None:
    buffer = JitterBuffer(ULAW)
    now = 0.0
    delivered = 0
    for seq, ssrc, data, step in stream:
        now += step
        out = buffer.push(RtpPacket(0, False, seq, 0, ssrc, LOUD + data), now) + buffer.poll(now)
        delivered += sum(frame.startswith(LOUD) for frame in out)
        assert len(buffer._held) <= 8
        assert all(0 < len(frame) <= 160 for frame in out)
        assert len(out) <= 2 * 109 + 50, "the longest gap twice, and a second of silence"
    counters = buffer.counters
    dropped = counters.late + counters.duplicate + counters.flooded
    assert delivered == len(stream) - dropped - len(buffer._held), "what was sent is heard or counted"
