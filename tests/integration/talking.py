"""Ears and a voice for emulated AIs whose words a test writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from arivox.audio.g711 import Pcm
from arivox.testing import signal


class Words:
    """Ears that hear the next of some words, whatever the sound."""

    def __init__(self, *words: str) -> None:
        self._left = deque(words)

    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        return self._left.popleft()


class Tone:
    """A voice that hums each text for half a second."""

    rate = 8000

    def say(self, text: str) -> Pcm:
        return np.concatenate([signal.tone(313, 0.5), np.zeros(400, np.int16)])
