"""The measurements find the damage that was done, where it was done, and nothing in what was not damaged."""

from __future__ import annotations

import numpy as np
import pytest

from arivox.audio import g711
from arivox.audio.g711 import Law, Pcm
from arivox.testing import signal

FREQS = (413.0, 1013.0, 3113.0)


def through(pcm: Pcm, law: Law = "ulaw") -> Pcm:
    """What is heard of ``pcm`` at the other end of a G.711 line."""
    return g711.decode(g711.encode(pcm, law), law)


def near(found: list[tuple[float, float]], wanted: list[tuple[float, float]], abs_ms: float = 1) -> bool:
    return np.shape(found) == np.shape(wanted) and np.allclose(found, wanted, rtol=0, atol=abs_ms)


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
@pytest.mark.parametrize("freq", FREQS)
def test_clean_tone(freq: float, law: Law) -> None:
    heard = through(signal.tone(freq, 2.0), law)
    assert signal.dominant_frequency(heard) == pytest.approx(freq, abs=0.05)
    assert signal.tone_level_db(heard, freq) == pytest.approx(-12.0, abs=0.1)
    assert signal.level_dbfs(heard) == pytest.approx(-12.0, abs=0.1)
    assert signal.snr_db(heard, freq) > 35
    assert signal.dropouts(heard, freq) == []
    assert near(signal.active_segments(heard), [(0, 2000)])


@pytest.mark.parametrize("ms", [10, 20, 30, 40, 60])
@pytest.mark.parametrize("freq", FREQS)
def test_missing_or_repeated_packet_is_a_seam(freq: float, ms: int) -> None:
    heard = through(signal.tone(freq, 2.0))
    cut, n = 8000, 8 * ms
    for damaged in (np.delete(heard, slice(cut, cut + n)), np.insert(heard, cut, heard[cut - n : cut])):
        ((start, length),) = signal.dropouts(damaged, freq)
        assert start == pytest.approx(1000, abs=3)
        assert length == 0.0
        assert signal.snr_db(damaged, freq) < 20


@pytest.mark.parametrize("freq", FREQS)
def test_swapped_packets_are_seams(freq: float) -> None:
    heard = through(signal.tone(freq, 2.0))
    damaged = np.concatenate([heard[:8000], heard[8160:8320], heard[8000:8160], heard[8320:]])
    found = signal.dropouts(damaged, freq)
    assert len(found) >= 2
    assert found[0][0] == pytest.approx(1000, abs=3)
    assert found[-1][0] == pytest.approx(1040, abs=3)


@pytest.mark.parametrize("ms", [5, 20, 137])
@pytest.mark.parametrize("freq", FREQS)
def test_silence_in_the_tone_has_its_place_and_length(freq: float, ms: int) -> None:
    heard = through(signal.tone(freq, 2.0))
    heard[8000 : 8000 + 8 * ms] = 0
    ((start, length),) = signal.dropouts(heard, freq)
    assert start == pytest.approx(1000, abs=1.5)
    assert length == pytest.approx(ms, abs=2)


def test_silence_at_the_ends_and_no_tone_at_all() -> None:
    heard = through(signal.tone(613, 2.0))
    heard[:400] = 0
    heard[-800:] = 0
    assert near(signal.dropouts(heard, 613), [(0, 50), (1900, 100)], abs_ms=2)
    assert signal.dropouts(signal.silence(1.0), 613) == [(0.0, 1000.0)]
    with pytest.raises(ValueError, match="too few"):
        signal.dropouts(signal.silence(0.01), 613)


def test_other_tones_do_not_count_as_the_own_one() -> None:
    mixed = through(signal.tone(1013, 1.0) + signal.tone(1113, 1.0, level_dbfs=-42))
    assert signal.tone_level_db(mixed, 1013) == pytest.approx(-12, abs=0.2)
    assert signal.tone_level_db(mixed, 1113) == pytest.approx(-42, abs=1)
    assert signal.tone_level_db(mixed, 1213) < -60
    assert signal.snr_db(mixed, 1013) == pytest.approx(30, abs=1.5)


def test_probes_are_apart_and_turn_in_every_usual_packet() -> None:
    assert min(np.diff(signal.PROBES_HZ)) >= 100
    for ms in (10, 20, 30, 40, 60):
        turns = np.array(signal.PROBES_HZ) * ms / 1000 % 1
        assert np.all(np.minimum(turns, 1 - turns) > 40 / 360)


def test_segments_bridge_short_pauses_and_drop_short_sounds() -> None:
    beep, pause = signal.tone(1000, 0.1), signal.silence(0.1)
    blip, breath = signal.tone(1000, 0.005), signal.silence(0.015)
    heard = through(np.concatenate([pause, beep, breath, beep, pause, blip, pause, beep]))
    assert near(signal.active_segments(heard), [(100, 315), (520, 620)])
    assert signal.onset_ms(heard) == pytest.approx(100, abs=1)
    assert signal.onset_ms(pause) is None


def test_silence_has_no_level_and_no_frequency() -> None:
    assert signal.level_dbfs(signal.silence(1)) == signal.FLOOR_DB
    assert signal.level_dbfs(np.zeros(0, np.int16)) == signal.FLOOR_DB
    assert signal.tone_level_db(signal.silence(1), 1000) == signal.FLOOR_DB
    assert signal.dominant_frequency(signal.silence(1)) == 0.0


def test_speech_like_sound_has_syllables_and_the_same_samples_each_time() -> None:
    speech = signal.speech_like(2.0)
    assert np.array_equal(speech, signal.speech_like(2.0))
    assert len(signal.active_segments(speech, min_ms=40)) >= 4
    assert np.max(np.abs(speech)) == pytest.approx(signal.amplitude(-15), rel=0.01)
