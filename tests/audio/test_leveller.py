"""The leveller: quiet callers become louder, and nothing else can be heard of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.g711 import Pcm
from arivox.audio.level import Leveller

FRAME = 160
STEP = 1.06  # 0.5 dB


def speech(rms: float, frames: int, *, seed: int = 1) -> list[Pcm]:
    """Return frames of a 440 Hz tone at a level in units of full scale."""
    wave = np.sin(2 * np.pi * 440 * np.arange(frames * FRAME) / 8000 + seed) * rms * np.sqrt(2) * 32768
    return np.split(np.rint(wave).astype(np.int16), frames)


def level(pcm: Pcm) -> float:
    return float(np.sqrt(np.mean(pcm.astype(float) ** 2))) / 32768


def gains(source: Pcm, out: Pcm) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the gain at every sample that is loud enough to tell."""
    loud = np.abs(source.astype(int)) > 200
    ratio: np.ndarray[tuple[int], np.dtype[np.float64]] = out[loud].astype(float) / source[loud]
    return ratio


def test_quiet_caller_reaches_the_target() -> None:
    leveller = Leveller(0.15, max_gain=4.0)
    last = [leveller.process(frame) for frame in speech(0.05, 200)][-1]
    assert level(last) == pytest.approx(0.15, rel=0.05)


def test_gain_has_a_limit() -> None:
    leveller = Leveller(0.5, max_gain=2.0)
    out = [leveller.process(frame) for frame in speech(0.02, 300)]
    assert leveller.gain == pytest.approx(2.0)
    assert max(map(level, out)) <= 0.02 * 2.03


def test_very_loud_callers_pass_untouched() -> None:
    leveller = Leveller(0.15)
    for frame in speech(0.5, 50):
        assert np.array_equal(leveller.process(frame), frame)


def test_callers_at_the_target_pass_untouched() -> None:
    leveller = Leveller(0.15)
    for frame in speech(0.2, 50):
        assert np.array_equal(leveller.process(frame), frame)


def test_what_is_below_min_rms_is_not_raised() -> None:
    leveller = Leveller(0.15, min_rms=0.01)
    for frame in speech(0.009, 200):
        assert np.array_equal(leveller.process(frame), frame)
    assert leveller.gain == 1.0


def test_gain_moves_without_clicks() -> None:
    leveller = Leveller(0.15, max_gain=4.0)
    frames = speech(0.04, 60) + speech(0.1, 60) + speech(0.03, 60)
    before = 1.0
    for frame in frames:
        out = leveller.process(frame)
        assert 1 / STEP - 1e-6 <= leveller.gain / before <= STEP + 1e-6, "at most 0.5 dB a frame"
        ratio = gains(frame, out)
        # Rounding to whole samples shows as an error of up to 1/200 at the quietest ones that count.
        low, high = sorted((before, leveller.gain))
        assert ratio.min() >= low - 0.01
        assert ratio.max() <= high + 0.01
        assert ratio[0] == pytest.approx(before, abs=0.02), "the frame begins where the last one ended"
        before = leveller.gain


def test_pauses_do_not_pump() -> None:
    leveller = Leveller(0.15, min_rms=0.01, max_gain=4.0)
    for frame in speech(0.05, 200):
        leveller.process(frame)
    settled = leveller.gain
    for frame in speech(0.0005, 100):
        leveller.process(frame)
    assert leveller.gain == pytest.approx(settled, rel=0.01), "a pause is no reason to turn up"
    for frame in speech(0.05, 5):
        leveller.process(frame)
    assert leveller.gain == pytest.approx(settled, rel=0.05)


def test_steady_peaks_are_never_clipped() -> None:
    # Quiet on the whole, with a peak in each frame: the target would drive the peak into the limit.
    leveller = Leveller(0.5, max_gain=10.0)
    for frame in speech(0.05, 200):
        spiky = frame.copy()
        spiky[FRAME // 2] = 20000
        out = leveller.process(spiky)
        assert np.abs(out.astype(int)).max() <= 32767
        assert abs(int(out[FRAME // 2])) < 32767


def test_loud_onset_is_not_clipped() -> None:
    leveller = Leveller(0.15, max_gain=2.0)
    for frame in speech(0.05, 200):
        leveller.process(frame)
    loud = speech(0.6, 1)[0]
    assert np.abs(loud.astype(int)).max() < 28000
    out = leveller.process(loud)
    assert np.count_nonzero(np.abs(out.astype(int)) >= 32767) == 0


def test_silence_and_nothing_stay_what_they_are() -> None:
    leveller = Leveller(0.15, max_gain=4.0)
    empty = np.zeros(0, np.int16)
    assert len(leveller.process(empty)) == 0
    for frame in speech(0.05, 100):
        leveller.process(frame)
    out = leveller.process(np.zeros(FRAME, np.int16))
    assert out.dtype == np.int16
    assert not out.any()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    amplitudes=st.lists(st.integers(0, 32768), min_size=1, max_size=40),
    target=st.floats(0.01, 1),
    most=st.floats(1, 20),
)
def test_any_signal_keeps_its_shape(seed: int, amplitudes: list[int], target: float, most: float) -> None:
    leveller = Leveller(target, max_gain=most)
    random = np.random.default_rng(seed)
    for amplitude in amplitudes:
        frame = random.integers(-amplitude, amplitude + 1, FRAME).clip(-32768, 32767).astype(np.int16)
        before = frame.copy()
        out = leveller.process(frame)
        assert np.array_equal(frame, before), "the input belongs to the caller"
        assert out.shape == frame.shape
        assert 1.0 <= leveller.gain <= most
        assert np.all(np.sign(out) == np.sign(frame)), "samples keep their sign: nothing wraps"
        assert np.all(np.abs(out.astype(int)) >= np.abs(frame.astype(int)) - 1), "never quieter than before"
