"""Whether an answer holds a sound."""

from __future__ import annotations

import pytest

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, encode
from arivox.call.voice import Voice
from arivox.testing import signal

FRAME = 160


@pytest.mark.parametrize(("audio", "law"), [(ULAW, "ulaw"), (ALAW, "alaw")])
def test_sound_is_told_from_silence(audio: AudioFormat, law: Law) -> None:
    voice = Voice(audio)
    voice.add(b"")
    voice.add(audio.silence * 80_000)
    voice.add(encode(signal.tone(300, 1.0, level_dbfs=-60), law))
    assert not voice.heard
    voice.add(encode(signal.speech_like(1.0, level_dbfs=-35), law))
    assert voice.heard
    assert voice.sounds
    voice.add(audio.silence * FRAME)
    assert voice.heard
    assert not voice.sounds, "what follows it is silence again"
    voice.restart()
    assert not voice.heard


def test_click_is_none() -> None:
    voice = Voice(ULAW)
    voice.add(encode(signal.tone(300, 0.02), "ulaw") + ULAW.silence * 8000)
    assert not voice.heard


def test_what_is_sifted_is_a_voice_from_its_first_sample() -> None:
    voice = Voice(ULAW, sifted=True)
    voice.add(ULAW.silence * 160)
    assert not voice.heard
    voice.add(b"\x20" + ULAW.silence * 159)
    assert voice.heard
