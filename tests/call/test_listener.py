"""What the line itself tells of the caller's voice."""

from __future__ import annotations

import pytest

from arivox.audio.g711 import encode
from arivox.call.listener import Listener
from arivox.testing import signal

FRAME = 160


def heard(pcm: bytes) -> Listener:
    listener = Listener("ulaw")
    for start in range(0, len(pcm), FRAME):
        listener.add(pcm[start : start + FRAME], agent=False, signs=0)
    return listener


@pytest.mark.parametrize("seed", range(4))
def test_one_short_word_is_a_voice(seed: int) -> None:
    """Each of its syllables is as long as it is: "hello?" is enough to be noticed."""
    words = signal.speech_like(0.9, seed=seed)
    listener = heard(encode(signal.silence(2.0), "ulaw") + encode(words, "ulaw"))
    assert 0.5 <= listener.said_s <= 0.9


def test_clicks_are_none() -> None:
    click = encode(signal.tone(900, 0.04), "ulaw") + encode(signal.silence(0.5), "ulaw")
    assert heard(encode(signal.silence(2.0), "ulaw") + click * 10).said_s == 0.0
