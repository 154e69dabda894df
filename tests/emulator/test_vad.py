import numpy as np
import pytest

from arivox.audio.format import SLIN24, ULAW
from arivox.audio.g711 import Pcm
from arivox.emulator import sound
from arivox.emulator.vad import EnergyVad, SpeechStarted, SpeechStopped


def loud(ms: int, rate: int = 8000, level: float = 0.2) -> Pcm:
    return sound.decode(
        sound.tone(ULAW if rate == 8000 else SLIN24, ms, level=level), ULAW if rate == 8000 else SLIN24
    )


def quiet(ms: int, rate: int = 8000) -> Pcm:
    noise = np.random.default_rng(1).normal(0, 8, ms * rate // 1000)
    return np.rint(noise).astype(np.int16)


@pytest.mark.parametrize("rate", [8000, 24000])
@pytest.mark.parametrize("chunk_ms", [1, 20, 33, 5000])
def test_a_turn_is_found_with_its_padding_and_its_silence(rate: int, chunk_ms: int) -> None:
    vad = EnergyVad(rate, 0.5, 300, 500)
    stream = np.concatenate([quiet(1000, rate), loud(800, rate), quiet(1200, rate)])
    step = chunk_ms * rate // 1000
    events = [
        event for start in range(0, len(stream), step) for event in vad.feed(stream[start : start + step])
    ]
    assert events == [SpeechStarted(700), SpeechStopped(2300)]


def test_a_pause_shorter_than_the_setting_does_not_end_the_turn() -> None:
    vad = EnergyVad(8000, silence_duration_ms=500)
    stream = np.concatenate([loud(400), quiet(480), loud(400), quiet(500)])
    assert [type(event) for event in vad.feed(stream)] == [SpeechStarted, SpeechStopped]


def test_a_click_is_no_speech() -> None:
    assert EnergyVad(8000).feed(np.concatenate([quiet(200), loud(40), quiet(1000)])) == []


def test_a_higher_threshold_wants_louder_speech() -> None:
    whisper = loud(500, level=0.012)
    assert EnergyVad(8000, threshold=0.3).feed(whisper)
    assert EnergyVad(8000, threshold=0.9).feed(whisper) == []


def test_padding_reaches_neither_before_the_stream_nor_into_the_turn_before() -> None:
    vad = EnergyVad(8000, prefix_padding_ms=300, silence_duration_ms=200, position_ms=5000)
    events = vad.feed(np.concatenate([loud(400), quiet(200), quiet(100), loud(400), quiet(200)]))
    assert events == [SpeechStarted(5000), SpeechStopped(5600), SpeechStarted(5600), SpeechStopped(6300)]
