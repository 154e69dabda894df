"""Samples to bytes of a format and back, and test sounds."""

from __future__ import annotations

from typing import Final

import numpy as np

from arivox.audio import g711
from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law, Pcm
from arivox.audio.resample import Resampler

_LAWS: Final[dict[str, Law]] = {"ulaw": "ulaw", "alaw": "alaw"}
_PHONE_RATE: Final = 8000
_MARK_MS: Final = 10
_MARK_STEP: Final = 200


def decode(data: bytes | bytearray | memoryview, audio_format: AudioFormat) -> Pcm:
    """Return the samples in ``data``: shape (n,), int16, at the format's rate. Half a sample is dropped."""
    law = audio_format.law
    if law is not None:
        return g711.decode(data, _LAWS[law])
    return np.frombuffer(data, "<i2", count=len(data) // 2).astype(np.int16)


def encode(pcm: Pcm, audio_format: AudioFormat) -> bytes:
    """Return ``pcm``, which is at the format's rate, as the format's bytes."""
    law = audio_format.law
    return g711.encode(pcm, _LAWS[law]) if law is not None else pcm.astype("<i2").tobytes()


def resample(pcm: Pcm, source: int, target: int) -> Pcm:
    """Return one whole utterance at ``target`` Hz; both rates are of 8000, 16000 and 24000.

    Between 16 and 24 kHz it goes through 8 kHz: what is above 3.4 kHz is lost, as it is on a phone line.
    """
    for rate in (_PHONE_RATE, target):
        if source != rate and _PHONE_RATE in {source, rate}:
            pcm = Resampler(source, rate).process(pcm)
            source = rate
        elif source != rate:
            pcm = Resampler(source, _PHONE_RATE).process(pcm)
            source = _PHONE_RATE
    return pcm


def tone(audio_format: AudioFormat, ms: float, hz: float = 440.0, level: float = 0.3) -> bytes:
    """Return a sine of ``ms`` milliseconds; ``level`` 1.0 is full scale."""
    count = int(ms * audio_format.rate / 1000)
    phase = np.arange(count) * (2 * np.pi * hz / audio_format.rate)
    return encode(np.rint(np.sin(phase) * (level * 32767)).astype(np.int16), audio_format)


def marks(audio_format: AudioFormat, ms: float, start_ms: float = 0) -> bytes:
    """Return ``ms`` milliseconds in which every 10 ms hold one constant that tells their place.

    The blocks are numbered from the start of the stream (``start_ms`` / 10) modulo 128; ``read_marks`` gives
    the numbers back, so a listener can tell what was lost, doubled or moved.
    """
    count = int(ms * audio_format.rate / 1000)
    first = int(start_ms * audio_format.rate / 1000)
    blocks = np.arange(first, first + count) * 1000 // (audio_format.rate * _MARK_MS) % 128
    if audio_format.law is not None:
        return blocks.astype(np.uint8).tobytes()
    return ((blocks - 64) * _MARK_STEP).astype("<i2").tobytes()


def read_marks(data: bytes, audio_format: AudioFormat) -> list[int]:
    """Return the number of the mark in each sample of ``data``, which ``marks`` made."""
    if audio_format.law is not None:
        return list(data)
    return [int(sample) // _MARK_STEP + 64 for sample in np.frombuffer(data, "<i2")]
