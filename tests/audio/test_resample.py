"""The resampler: what it passes, what it stops, how late it is, and that chunks leave no seams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.g711 import SILENCE, Law, Pcm, decode, encode
from arivox.audio.resample import Resampler

PAIRS = [(24000, 8000), (16000, 8000), (8000, 24000), (8000, 16000)]
DOWN, UP = PAIRS[:2], PAIRS[2:]
SECOND = 0.5  # length of the test tones


def tone(frequency: float, rate: int, amplitude: float = 32000.0) -> Pcm:
    return np.rint(amplitude * np.sin(2 * np.pi * frequency * np.arange(int(rate * SECOND)) / rate)).astype(
        np.int16
    )


def strength(pcm: Pcm, frequency: float, rate: int) -> float:
    """Return the amplitude of one frequency in ``pcm``, the settling at both ends left out."""
    steady = pcm[rate // 100 : -(rate // 100)].astype(float)
    window = np.hanning(len(steady))
    carrier = np.exp(-2j * np.pi * frequency * np.arange(len(steady)) / rate)
    return float(2 * abs(np.dot(steady * window, carrier)) / window.sum())


def rms(pcm: Pcm, rate: int) -> float:
    steady = pcm[rate // 100 : -(rate // 100)].astype(float)
    return float(np.sqrt(np.mean(steady**2)))


def db(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-12)))


@pytest.mark.parametrize(
    ("source", "frequency"),
    [(24000, f) for f in (4600, 4850, 5000, 6000, 7000, 7999, 8000, 9000, 10500, 11900)]
    + [(16000, f) for f in (4600, 5000, 6000, 7000, 7950)],
)
def test_what_8_khz_cannot_hold_is_stopped(source: int, frequency: int) -> None:
    heard = Resampler(source, 8000).process(tone(frequency, source))
    assert db(rms(heard, 8000) * np.sqrt(2) / 32000) <= -80


@pytest.mark.parametrize(("source", "target"), UP)
@pytest.mark.parametrize("frequency", [300, 1000, 2000, 3000, 3400])
def test_images_are_stopped(source: int, target: int, frequency: int) -> None:
    heard = Resampler(source, target).process(tone(frequency, source))
    images = [frequency for frequency in (8000 - frequency, 8000 + frequency) if frequency < target / 2]
    assert images
    for image in images:
        assert db(strength(heard, image, target) / 32000) <= -80, image


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("frequency", [50, 300, 1000, 1700, 2500, 3000, 3400])
def test_speech_band_is_flat(source: int, target: int, frequency: int) -> None:
    heard = Resampler(source, target).process(tone(frequency, source, 16000))
    assert abs(db(strength(heard, frequency, target) / 16000)) <= 0.5


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("hz", [100, 1000, 3000, 3400])
def test_delay_is_as_stated_and_short(source: int, target: int, hz: int) -> None:
    resampler = Resampler(source, target)
    # A tone that swells and fades: its middle comes out later by the delay.
    width = source // 50
    n = np.arange(12 * width)
    swell = np.exp(-(((n - 6 * width) / width) ** 2) / 2)
    out = resampler.process((30000 * swell * np.cos(2 * np.pi * hz * n / source)).astype(np.int16))
    power = np.abs(out.astype(float)) ** 2
    middle_ms = float(np.dot(power, np.arange(len(out))) / power.sum()) / target * 1000
    delay_ms = middle_ms - 6 * width / source * 1000
    assert delay_ms == pytest.approx(resampler.delay_ms(hz), abs=0.03)
    assert -0.1 <= delay_ms <= 0.8


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_full_scale_saturates_and_never_wraps(source: int, target: int) -> None:
    # A square wave overshoots behind a low-pass: its peaks do not fit into 16 bits.
    square = np.where(np.arange(source // 5) // (source // 400) % 2, -32768, 32767).astype(np.int16)
    out = Resampler(source, target).process(square).astype(int)
    assert out.max() == 32767
    assert out.min() == -32768
    assert np.abs(np.diff(out)).max() < 60000, "no sample jumped to the other end of the scale"
    # No sample inside a half wave has the wrong sign: that is what wrapping would sound like.
    period = target // 400
    delayed = out[round(Resampler(source, target).delay_ms(1000) * target / 1000) :]
    for start in range(period, len(delayed) - period, period):
        middle = delayed[start + period // 4 : start + 3 * period // 4]
        assert np.all(np.sign(middle) == np.sign(middle[0]))


NOISE = np.random.default_rng(711).integers(-32768, 32768, 6000).astype(np.int16)
cuts = st.lists(st.integers(0, 1300), max_size=12)


@settings(max_examples=60)
@given(pair=st.sampled_from(PAIRS), cuts=cuts)
def test_chunks_leave_no_seams(pair: tuple[int, int], cuts: list[int]) -> None:
    whole = Resampler(*pair).process(NOISE)
    pieces, resampler, at = [], Resampler(*pair), 0
    for cut in [*cuts, len(NOISE)]:
        pieces.append(resampler.process(NOISE[at : at + cut]))
        at = min(at + cut, len(NOISE))
        if pair[0] < pair[1]:
            assert sum(map(len, pieces)) == at * pair[1] // pair[0], "going up, counts are exact at once"
        else:
            assert sum(map(len, pieces)) == at // (pair[0] // pair[1]), "going down, whole groups only"
    joined = np.concatenate(pieces)
    assert len(joined) == len(whole)
    assert np.abs(joined.astype(int) - whole.astype(int)).max() <= 1


@settings(max_examples=60)
@given(
    pair=st.sampled_from(UP),
    law=st.sampled_from(["ulaw", "alaw"]),
    parts=st.lists(
        st.tuples(st.sampled_from([0.0, 300.0, 9000.0, 60000.0]), st.integers(0, 200)), max_size=9
    ),
)
def test_g711_is_resampled_as_its_samples_are(
    pair: tuple[int, int], law: Law, parts: list[tuple[float, int]]
) -> None:
    # Loud and quiet by turns, in chunks of any size: what a loud chunk leaves behind may overshoot later.
    signs = np.random.default_rng(3).choice([-1.0, 1.0], 2000)
    chunks = [
        encode(np.clip(level * signs[:size], -32768, 32767).astype(np.int16), law) for level, size in parts
    ]
    direct, by_samples = Resampler(*pair, law), Resampler(*pair)
    by_samples.process(decode(SILENCE[law] * 100, law))
    for chunk in chunks:
        heard = direct.pcm(chunk).astype(int)
        expected = by_samples.process(decode(chunk, law)).astype(int)
        assert np.abs(heard - expected).max(initial=0) <= 1


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_reset_forgets_the_stream(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    resampler.process(NOISE[:1001])
    resampler.reset()
    assert np.array_equal(resampler.process(NOISE), Resampler(source, target).process(NOISE))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_input_is_not_changed(source: int, target: int) -> None:
    chunk = NOISE[:481].copy()
    Resampler(source, target).process(chunk)
    assert np.array_equal(chunk, NOISE[:481])


def test_the_input_is_not_kept() -> None:
    chunk = NOISE[:481].copy()
    resampler = Resampler(24000, 8000)
    resampler.process(chunk)
    expected = Resampler(24000, 8000)
    expected.process(NOISE[:481])
    chunk[:] = 0  # the caller uses its buffer again
    assert np.array_equal(resampler.process(NOISE[481:900]), expected.process(NOISE[481:900]))


@pytest.mark.parametrize("pair", [(8000, 8000), (24000, 16000), (8000, 48000), (44100, 8000), (0, 8000)])
def test_other_rates_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{pair[0]} and {pair[1]}"):
        Resampler(*pair)
