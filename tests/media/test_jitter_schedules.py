"""The caller's stream through schedules of every kind: as long as what was said, or as the time."""

from __future__ import annotations

import random
from dataclasses import dataclass

from callerstream import LOUD, Listener
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.format import ULAW
from arivox.media.rtp.jitter import JitterBuffer
from arivox.media.rtp.packet import RtpPacket

BUFFER_S = 0.04
TICK_S = 0.02
MOST_LATE_S = 1.0
FLOOD_S = 5.5
FASTER = 1.1


def marked(number: int, size: int) -> bytes:
    """Return a loud payload that says which packet it is."""
    return b"\x80" + number.to_bytes(2, "big") + LOUD * (size - 3)


ptimes = st.sampled_from([10, 20, 30, 40, 50, 60, 80, 100, 120])


@settings(max_examples=150)
@given(
    ptime=ptimes,
    jitter=st.floats(0, 2),
    reordering=st.booleans(),
    phase=st.floats(0, TICK_S),
    seed=st.integers(0, 1000),
    changes=st.lists(ptimes, max_size=2),
)
def test_jitter_changes_neither_length_nor_order(
    ptime: int, jitter: float, reordering: bool, phase: float, seed: int, changes: list[int]
) -> None:
    """Whatever the ptime, and with jitter of up to two packets: what comes out is what went in."""
    chance = random.Random(seed)
    arrivals: list[tuple[float, int, int, bytes]] = []
    said = 0
    spoken = 0.0
    for section in (ptime, *changes):
        count = 4000 // section
        for index in range(count):
            size = 8 * section
            spoken += section / 1000
            # A change of the ptime comes on time: how long the next packet will be, nobody can know.
            late = jitter * section / 1000 * chance.random() if 0 < index < count - 3 else 0.0
            # Without reordering each waits behind the one before it, as in a queue.
            at = spoken + late if reordering or not arrivals else max(arrivals[-1][0], spoken + late)
            arrivals.append((at, len(arrivals), said, marked(len(arrivals), size)))
            said += size
    listener = Listener(ULAW, phase)
    for at, number, timestamp, payload in sorted(arrivals):
        listener.hear(number, at, payload, timestamp=timestamp)
    listener.wait(arrivals[-1][0] + 0.2)
    longest = max(ptime, *changes, 0) / 1000
    heard = listener.heard
    length = heard.rfind(LOUD) + 1 - heard.find(b"\x80")
    assert abs(length - said) / 8000 <= longest + BUFFER_S
    marks = [frame[1:3] for frame in listener.frames if frame[0] == 0x80]
    order = [int.from_bytes(mark, "big") for mark in marks]
    assert order == sorted(set(order)), "in order, each once"
    assert len(order) == len(arrivals), "none is lost"


@dataclass(frozen=True)
class Part:
    """Some packets, and what comes before them."""

    kind: str
    seconds: float
    packets: int
    drift: float


parts = st.builds(
    Part,
    kind=st.sampled_from(["hold", "pause", "stall", "nothing"]),
    seconds=st.floats(0, 4),
    packets=st.integers(1, 120),
    drift=st.sampled_from([0.0, 0.0, 0.0002, -0.0002]),
)


@settings(max_examples=150)
@given(
    parts=st.lists(parts, min_size=1, max_size=6),
    ptime=ptimes,
    jitter=st.floats(0, 0.03),
    seed=st.integers(0, 1000),
    phase=st.floats(0, TICK_S),
)
def test_only_what_came_late_is_taken_out_again(
    parts: list[Part], ptime: int, jitter: float, seed: int, phase: float
) -> None:
    """Every packet is quiet, so all that may be taken out is: only what was put in for a stall."""
    chance = random.Random(seed)
    listener = Listener(ULAW, phase)
    quiet = b"\x7e" * (8 * ptime)
    length = ptime / 1000
    clock = 0.0  # of the phone
    stamp = number = 0
    last = 0.0
    allowed = 0.0
    for part in parts:
        held_until = 0.0
        if part.kind in ("hold", "pause"):
            clock += part.seconds
            stamp += round(8000 * part.seconds) if part.kind == "pause" else 0
            allowed += jitter + length + BUFFER_S
        elif part.kind == "stall":
            held_until = clock + part.seconds
            allowed += min(part.seconds, MOST_LATE_S) + jitter + length + BUFFER_S
        for _ in range(part.packets):
            clock += length * (1 + part.drift)
            last = max(last, clock + jitter * chance.random(), held_until)
            listener.hear(number, last, quiet, timestamp=stamp)
            stamp += len(quiet)
            number += 1
    taken = listener.counters.thinned * TICK_S if ptime % 20 == 0 else 0
    assert taken <= allowed
    if all(part.kind != "stall" for part in parts):
        assert len(listener.heard) / 8000 >= last - length - jitter - 0.4, "as long as the time, to a wait"
    assert len(listener.heard) / 8000 <= last + sum(
        part.seconds for part in parts if part.kind == "stall"
    ) + (length + jitter + BUFFER_S) * len(parts)
    assert listener.counters.flooded == 0 or sum(part.seconds for part in parts) > FLOOD_S
    no_window_longer_than_its_time(listener)


packets = st.tuples(
    st.floats(0, 0.3),  # after the one before
    st.integers(0, 0xFFFF) | st.integers(0, 3),  # the sequence's step
    st.integers(0, 0xFFFFFFFF) | st.integers(0, 16000),  # the timestamp's
    st.sampled_from([80, 160, 240, 960]),
    st.integers(1, 2),
)


@settings(max_examples=150)
@given(st.lists(packets, max_size=80), st.integers(1, 4))
def test_no_packets_whatever_make_more_sound_than_time(
    stream: list[tuple[float, int, int, int, int]], times: int
) -> None:
    listener = Listener(ULAW)
    at, seq, stamp = 0.0, 0, 0
    for step, onward, jump, size, ssrc in stream * times:
        at, seq, stamp = at + step / 10, seq + onward, stamp + jump
        listener.hear(seq, at, LOUD * size, timestamp=stamp, ssrc=ssrc)
    listener.wait(at + 1)
    no_window_longer_than_its_time(listener)


def no_window_longer_than_its_time(listener: Listener) -> None:
    """Assert that no stretch of time brings more sound than it is long, and a tenth, and some seconds."""
    ahead = 0.0
    before = 0.0
    for frame, at in zip(listener.frames, listener.times, strict=True):
        ahead = max(ahead - FASTER * (at - before), 0.0) + len(frame) / 8000
        before = at
        assert ahead <= FLOOD_S + 0.001


def test_caller_who_sends_twice_as_much_as_there_is_time_is_cut_and_counted() -> None:
    buffer = JitterBuffer(ULAW)
    heard = 0
    for number in range(2000):
        now = 100 + 0.01 * number
        heard += sum(map(len, buffer.push(RtpPacket(0, False, number, 160 * number, 1, LOUD * 160), now)))
    assert heard <= 8000 * (FASTER * 20 + FLOOD_S)
    assert heard + 160 * buffer.counters.flooded == 160 * 2000
