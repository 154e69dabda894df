"""Between G.711 on the line and 16-bit samples at the provider."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, decode, encode
from arivox.providers.transcoder import Transcoder

FORMATS: list[tuple[AudioFormat, Law]] = [(ULAW, "ulaw"), (ALAW, "alaw")]


def tone(rate: int, seconds: float = 0.5, frequency: float = 1000.0) -> bytes:
    wave = 12000 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)
    return bytes(np.rint(wave).astype("<i2").tobytes())


def snr_db(signal: np.ndarray[tuple[int], np.dtype[np.float64]], frequency: float, rate: int) -> float:
    """Return how far one frequency stands above everything else, the ends left out."""
    signal = signal[rate // 50 : rate // 50 + rate // 4]
    time = np.arange(len(signal)) / rate
    carrier = np.stack([np.sin(2 * np.pi * frequency * time), np.cos(2 * np.pi * frequency * time)], 1)
    fit = carrier @ np.linalg.lstsq(carrier, signal, rcond=None)[0]
    return float(10 * np.log10(np.sum(fit**2) / np.sum((signal - fit) ** 2)))


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize(("audio", "law"), FORMATS)
def test_caller_reaches_the_provider(audio: AudioFormat, law: Law, rate: int) -> None:
    line = encode(np.frombuffer(tone(8000), "<i2"), law)
    heard = Transcoder(audio, up=rate, down=rate).to_provider(line)
    assert len(heard) == len(line) * rate // 8000 * 2
    assert snr_db(np.frombuffer(heard, "<i2").astype(float), 1000, rate) > 35


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize(("audio", "law"), FORMATS)
def test_agent_reaches_the_line(audio: AudioFormat, law: Law, rate: int) -> None:
    speech = tone(rate)
    heard = Transcoder(audio, up=rate, down=rate).to_link(speech)
    assert len(heard) == len(speech) // 2 * 8000 // rate
    assert snr_db(decode(heard, law).astype(float), 1000, 8000) > 35


@pytest.mark.parametrize(("audio", "law"), FORMATS)
def test_silence_stays_silence(audio: AudioFormat, law: Law) -> None:
    transcoder = Transcoder(audio, up=24000, down=24000)
    assert transcoder.to_link(bytes(960)) == audio.silence * 160
    quiet = np.frombuffer(transcoder.to_provider(audio.silence * 160), "<i2")
    assert np.abs(quiet).max() <= 10  # A-law has no zero: its silence is 8


@settings(max_examples=60)
@given(st.sampled_from([16000, 24000]), st.lists(st.integers(0, 1500), max_size=12))
def test_pieces_cut_anywhere_sound_like_the_whole(rate: int, cuts: list[int]) -> None:
    speech = tone(rate, 0.2, 700)
    whole = Transcoder(ULAW, up=rate, down=rate).to_link(speech)
    transcoder, heard, at = Transcoder(ULAW, up=rate, down=rate), b"", 0
    for cut in [*cuts, len(speech)]:
        heard += transcoder.to_link(speech[at : at + cut])  # an odd cut leaves half a sample over
        at = min(at + cut, len(speech))
    assert len(heard) == len(whole)
    difference = decode(heard, "ulaw").astype(int) - decode(whole, "ulaw").astype(int)
    assert np.abs(difference).max() <= 512, "one LSB may fall on the other side of a decision level"
    assert np.count_nonzero(difference) <= len(whole) // 50


def test_restart_forgets_half_a_sample_and_the_past() -> None:
    speech = tone(24000)
    used = Transcoder(ULAW, up=24000, down=24000)
    used.to_link(speech[:1001])
    used.restart()
    assert used.to_link(speech) == Transcoder(ULAW, up=24000, down=24000).to_link(speech)


def test_restart_leaves_the_caller_alone() -> None:
    line = bytes(range(256)) * 2
    used, fresh = Transcoder(ULAW, up=24000, down=24000), Transcoder(ULAW, up=24000, down=24000)
    first = used.to_provider(line[:300])
    used.restart()
    assert first + used.to_provider(line[300:]) == fresh.to_provider(line[:300]) + fresh.to_provider(
        line[300:]
    )


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_bytes_become_whole_samples(pieces: list[bytes]) -> None:
    transcoder = Transcoder(ULAW, up=24000, down=24000)
    heard = sum(len(transcoder.to_link(piece)) for piece in pieces)
    assert heard == sum(map(len, pieces)) // 2 // 3
