"""G.711 against the decision levels of the recommendation, exhaustively."""

from __future__ import annotations

import importlib.util
import warnings
from bisect import bisect_right
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.audio import g711
from arivox.audio.g711 import Law

LAWS: tuple[Law, ...] = ("ulaw", "alaw")
ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)

# ITU-T G.711, tables 1a and 2a: the decision levels that begin each segment, and the step inside it.
# A-law levels are of 13-bit samples (4096 the largest), mu-law levels of 14-bit samples (8159 the largest).
_ALAW_STEPS = [2, 2, 4, 8, 16, 32, 64, 128]
_ULAW_STEPS = [2, 4, 8, 16, 32, 64, 128, 256]


def _alaw_levels() -> list[int]:
    levels = [0]
    for step in _ALAW_STEPS:
        levels += [levels[-1] + step * (n + 1) for n in range(16)]
    return levels


def _ulaw_levels() -> list[int]:
    # The first interval is 0..1, half as wide as the other fifteen of its segment.
    levels = [0, *range(1, 32, 2)]
    for step in _ULAW_STEPS[1:]:
        levels += [levels[-1] + step * (n + 1) for n in range(16)]
    return levels


def _levels(law: Law) -> list[int]:
    return _alaw_levels() if law == "alaw" else _ulaw_levels()


def _code(law: Law, number: int, negative: bool) -> int:
    """Return the character signal of decision interval ``number`` (0 is the quietest)."""
    if law == "alaw":
        return ((0 if negative else 0x80) | number) ^ 0x55  # even bits inverted
    return ((0 if negative else 0x80) | (127 - number)) & 0xFF


def _value(law: Law, number: int) -> int:
    """Return the quantized value of an interval in 16-bit units: the middle of its decision levels."""
    low, high = _levels(law)[number : number + 2]
    if law == "ulaw":
        return 0 if number == 0 else (low + high) // 2 * 4
    return (low + high) * 8 // 2


def test_decision_levels_end_where_the_recommendation_says() -> None:
    assert len(_alaw_levels()) == len(_ulaw_levels()) == 129
    assert _alaw_levels()[-1] == 4096
    assert _alaw_levels()[16:129:16] == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert _ulaw_levels()[-1] == 8159
    assert _ulaw_levels()[16:129:16] == [31, 95, 223, 479, 991, 2015, 4063, 8159]


@pytest.mark.parametrize("law", LAWS)
def test_every_code_decodes_to_its_quantized_value(law: Law) -> None:
    expected = {}
    for number in range(128):
        expected[_code(law, number, False)] = _value(law, number)
        expected[_code(law, number, True)] = -_value(law, number)
    assert len(expected) == 256
    decoded = g711.decode(bytes(range(256)), law)
    assert decoded.dtype == np.int16
    assert {code: int(value) for code, value in enumerate(decoded)} == expected


@pytest.mark.parametrize("law", LAWS)
def test_every_sample_encodes_to_its_interval(law: Law) -> None:
    levels, shift = _levels(law), (3 if law == "alaw" else 2)
    encoded = g711.encode(ALL_SAMPLES, law)
    for sample, code in zip(ALL_SAMPLES.tolist(), encoded, strict=True):
        # Negative samples are the one's complement of positive ones, as ITU-T G.191 computes them.
        magnitude = (~sample if sample < 0 else sample) >> shift
        number = min(bisect_right(levels, magnitude) - 1, 127)
        assert code == _code(law, number, sample < 0), sample


@pytest.mark.parametrize("law", LAWS)
def test_codes_survive_decoding_and_encoding(law: Law) -> None:
    codes = bytes(range(256))
    again = g711.encode(g711.decode(codes, law), law)
    changed = {code: new for code, new in zip(codes, again, strict=True) if code != new}
    assert changed == (
        {0x7F: 0xFF} if law == "ulaw" else {}
    )  # mu-law has two zeros; the positive one is sent


@pytest.mark.parametrize("law", LAWS)
def test_error_of_quantization_is_at_most_half_a_step(law: Law) -> None:
    decoded = g711.decode(g711.encode(ALL_SAMPLES, law), law).astype(int)
    assert np.all(np.diff(decoded) >= 0), "louder samples stay louder"
    shift = 4 if law == "ulaw" else 8
    levels = _levels(law)
    widest = {number: (high - low) * shift for number, (low, high) in enumerate(pairwise(levels))}
    for sample, value in zip(ALL_SAMPLES.tolist(), decoded.tolist(), strict=True):
        scaled = min(abs(sample) // shift, levels[-1] - 1)
        step = widest[bisect_right(levels, scaled) - 1]
        overload = max(0, abs(sample) - levels[-1] * shift)
        assert abs(sample - value) <= step // 2 + overload + 1, sample


@pytest.mark.parametrize("law", LAWS)
def test_silence_is_zero_and_near_silence_stays_silent(law: Law) -> None:
    assert g711.encode(np.zeros(3, np.int16), law) == g711.SILENCE[law] * 3
    quiet = g711.decode(g711.encode(np.array([-4, -1, 0, 1, 3], np.int16), law), law)
    assert np.abs(quiet).max() <= (0 if law == "ulaw" else 8)


@pytest.mark.skipif(importlib.util.find_spec("audioop") is None, reason="Python 3.13 has no audioop")
@pytest.mark.parametrize("law", LAWS)
def test_audioop_agrees_except_for_its_known_fault(law: Law) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = importlib.import_module("audioop")
    to_linear, from_linear = (
        (audioop.ulaw2lin, audioop.lin2ulaw) if law == "ulaw" else (audioop.alaw2lin, audioop.lin2alaw)
    )
    codes = bytes(range(256))
    assert g711.decode(codes, law).astype("<i2").tobytes() == to_linear(codes, 2)
    theirs = from_linear(ALL_SAMPLES.astype("<i2").tobytes(), 2)
    different = [
        (sample, our, their)
        for sample, our, their in zip(
            ALL_SAMPLES.tolist(), g711.encode(ALL_SAMPLES, law), theirs, strict=True
        )
        if our != their
    ]
    # Its mu-law encoder puts negative samples next to a decision level into the louder interval.
    assert len(different) == (508 if law == "ulaw" else 0)
    assert all(sample < 0 and their == our - 1 for sample, our, their in different)


@given(data=st.binary(max_size=400), law=st.sampled_from(LAWS))
def test_any_bytes_decode_one_sample_a_byte(data: bytes, law: Law) -> None:
    for view in (data, bytearray(data), memoryview(data)):
        assert g711.decode(view, law).shape == (len(data),)
    assert len(g711.encode(g711.decode(data, law), law)) == len(data)


@given(data=st.binary(max_size=400), law=st.sampled_from(LAWS), factor=st.floats(0, 1))
def test_attenuation_never_makes_louder(data: bytes, law: Law, factor: float) -> None:
    before = np.abs(g711.decode(data, law).astype(int))
    after = np.abs(g711.decode(data.translate(g711.attenuation(law, factor)), law).astype(int))
    assert np.all(after <= before)
