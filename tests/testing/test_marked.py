"""A marked stream tells where in it a listener is, and what of it was missed."""

from __future__ import annotations

import numpy as np
import pytest

from arivox.audio import g711
from arivox.testing.marked import MarkedStream
from arivox.testing.signal import silence


@pytest.mark.parametrize("seconds", [1, 10, 60, 300])
def test_place_is_read_from_any_tail(seconds: float) -> None:
    stream = MarkedStream(seconds)
    heard = g711.decode(g711.encode(stream.pcm(), "ulaw"), "ulaw")
    for cut in np.linspace(400, len(heard), 25).astype(int):
        tail = np.concatenate([heard[max(0, cut - 800) : cut], silence(0.3)])
        assert stream.position_ms(tail) == pytest.approx(cut / 8, abs=3)


def test_place_is_read_from_twenty_milliseconds() -> None:
    stream = MarkedStream(10)
    assert stream.position_ms(stream.pcm()[40000 - 160 : 40000]) == pytest.approx(5000, abs=5)


def test_stream_made_at_one_rate_is_read_at_another() -> None:
    stream = MarkedStream(5)
    assert len(stream.pcm(24000)) == 120000
    assert stream.position_ms(stream.pcm(24000)[: 24000 * 3], 24000) == pytest.approx(3000, abs=2)
    # Every third sample of a sound below 4 kHz is that sound at 8 kHz.
    assert stream.position_ms(stream.pcm(24000)[: 24000 * 3 : 3]) == pytest.approx(3000, abs=2)


def test_whole_stream_has_no_jumps_and_its_full_length() -> None:
    stream = MarkedStream(30)
    heard = g711.decode(g711.encode(stream.pcm(), "alaw"), "alaw")
    assert stream.jumps(heard) == []
    track = stream.track(heard)
    assert np.max(np.abs(track[:, 0] - track[:, 1])) < 2
    assert stream.position_ms(heard) == pytest.approx(30000, abs=2)


@pytest.mark.parametrize("ms", [20, 60, 400])
def test_missing_and_repeated_pieces_have_their_length(ms: int) -> None:
    stream, n, cut = MarkedStream(20), 8 * ms, 80000
    heard = g711.decode(g711.encode(stream.pcm(), "ulaw"), "ulaw")
    missing = np.delete(heard, slice(cut, cut + n))
    repeated = np.insert(heard, cut, heard[cut - n : cut])
    delayed = np.insert(heard, cut, np.zeros(n, np.int16))
    for damaged, jump in ((missing, ms), (repeated, -ms), (delayed, -ms)):
        ((place, found),) = stream.jumps(damaged)
        assert found == pytest.approx(jump, abs=3)
        assert place == pytest.approx(10000, abs=max(100, ms))


def test_two_faults_are_two_jumps() -> None:
    stream = MarkedStream(20)
    damaged = np.delete(np.delete(stream.pcm(), slice(120000, 120160)), slice(40000, 40480))
    assert [jump for _, jump in stream.jumps(damaged)] == [pytest.approx(60, abs=3), pytest.approx(20, abs=3)]


def test_silence_has_no_place() -> None:
    with pytest.raises(ValueError, match="nothing is heard"):
        MarkedStream(10).position_ms(silence(1.0))
