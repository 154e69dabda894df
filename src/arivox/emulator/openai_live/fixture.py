"""Clips that a client has played to the caller: ``session.output_audio.fixture.play``."""

from __future__ import annotations

from typing import Final

from arivox.audio.format import SLIN24, AudioFormat
from arivox.emulator import sound
from arivox.emulator.openai.messages import RequestError

_MAX_MS: Final = 30_000


def fixture_audio(clip: bytes, audio_format: AudioFormat) -> bytes:
    """Return a clip, which is always 16-bit samples at 24 kHz, in the format of the session.

    Raises:
        RequestError: It is empty, too long or no whole number of samples.
    """
    if not clip or len(clip) % SLIN24.sample_bytes or SLIN24.ms(len(clip)) > _MAX_MS:
        message = f"A fixture is 16-bit PCM at 24 kHz, of at most {_MAX_MS // 1000} seconds."
        raise RequestError("invalid_value", message, param="audio")
    return sound.encode(
        sound.resample(sound.decode(clip, SLIN24), SLIN24.rate, audio_format.rate), audio_format
    )
