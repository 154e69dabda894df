"""What a caller must have heard."""

from __future__ import annotations

import time
import wave
from pathlib import Path

import numpy as np
import pytest

from arivox.audio.g711 import Pcm
from arivox.testing import signal
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone
from arivox.testing.recording import packet_level_dbfs

RATE = 8000


def sounding(pcm: Pcm, *, threshold_db: float = -40.0) -> Pcm:
    """Return the sound from its first to its last loud sample."""
    found = signal.active_segments(pcm, RATE, threshold_db)
    if not found:
        return pcm[:0]
    return pcm[round(found[0][0] * RATE / 1000) : round(found[-1][1] * RATE / 1000)]


def assert_clean_tone(pcm: Pcm, hz: float, seconds: float, *, snr_db: float = 30.0) -> None:
    """Assert that one tone is heard: whole, without a seam, and little else."""
    sound = sounding(pcm)
    assert len(sound) / RATE == pytest.approx(seconds, abs=0.005)
    inner = sound[80:-80]
    assert signal.dominant_frequency(inner) == pytest.approx(hz, abs=1.0)
    assert signal.dropouts(inner, hz) == []
    assert signal.snr_db(inner, hz) > snr_db


def assert_silent(pcm: Pcm) -> None:
    """Assert that nothing is heard."""
    assert signal.active_segments(pcm, RATE, -50.0, min_ms=5.0) == []


def milliwatt_seconds(pcm: Pcm) -> float:
    """Return how long the 1004 Hz of the dialplan's fallback are heard."""
    window = RATE // 20
    count = 0
    for start in range(0, len(pcm) - window + 1, window):
        piece = pcm[start : start + window]
        level = signal.tone_level_db(piece, 1004)
        # The congestion tone (480 and 620 Hz) is not it.
        count += level > -30 and level > signal.tone_level_db(piece, 550) + 10
    return count * window / RATE


def joined(*parts: Pcm) -> Pcm:
    """Return the parts one after another."""
    return np.concatenate(parts)


def last_loud(phone: SipPhone, start: float, stop: float = float("inf")) -> float:
    """Return when the last loud packet arrived from ``start`` until before ``stop``."""
    loud = [
        packet.time
        for packet in phone.received
        if start <= packet.time < stop and packet_level_dbfs(packet) > -40
    ]
    assert loud, "nothing was heard"
    return loud[-1]


def assert_whole(pcm: Pcm, stream: MarkedStream, *, tolerance_ms: float = 5.0) -> None:
    """Assert that a marked stream is heard from its start to its end, with nothing missing or repeated."""
    sound = sounding(pcm)
    assert len(sound) / RATE * 1000 == pytest.approx(stream.seconds * 1000, abs=tolerance_ms)
    assert stream.jumps(sound) == []
    assert stream.position_ms(sound) == pytest.approx(stream.seconds * 1000, abs=30)


def assert_all_heard(pcm: Pcm, stream: MarkedStream) -> None:
    """Assert that no piece of a marked stream is missing or repeated.

    An AI that speaks in real time may be late on a busy machine: then there is a pause, and nothing is lost.
    """
    sound = sounding(pcm)
    assert all(jump < 8 for _, jump in stream.jumps(sound)), "a piece is missing"
    assert stream.position_ms(sound) == pytest.approx(stream.seconds * 1000, abs=30)


def longest_silence_s(pcm: Pcm) -> float:
    """Return the longest pause between two sounds, or after the last one."""
    edges = [0.0]
    for start, end in signal.active_segments(pcm, RATE):
        edges += [start, end]
    edges.append(len(pcm) * 1000 / RATE)
    return max(edges[index + 1] - edges[index] for index in range(2, len(edges), 2)) / 1000


async def hear_fallback(phone: SipPhone, *, after: float = 0.0, timeout: float = 6.0) -> Pcm:
    """Wait until the 1004 Hz of the dialplan's fallback are heard for half a second, and hang up.

    Return what was heard from ``after`` on. Raises TimeoutError where they do not come.
    """
    packets = 0

    def lasts(pcm: Pcm) -> bool:
        nonlocal packets
        # 160 samples tell 1004 Hz from the 480 and 620 Hz of the congestion tone.
        alone = signal.tone_level_db(pcm, 1004) > -30 and signal.tone_level_db(pcm, 550) < -40
        packets = packets + 1 if alone else 0
        return packets == 25

    await phone.wait_heard(after=after, predicate=lasts, timeout=timeout)
    heard = phone.heard_between(after, time.monotonic()).pcm
    await phone.hangup()
    return heard


def read_recording(path: Path) -> tuple[Pcm, Pcm]:
    """Return left and right of a recording."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(both) == 2 * file.getnframes(), "the header promises more than the file holds"
    return both[0::2].astype(np.int16), both[1::2].astype(np.int16)
