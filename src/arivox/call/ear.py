"""What the AI and the recorder may hear of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from arivox.audio.format import ALAW, AudioFormat
from arivox.audio.g711 import Law, decode, encode
from arivox.audio.level import Leveller
from arivox.media.recorder import Recorder
from arivox.settings.settings import Settings


class Ear:
    """The caller's sound, brought to one level, on its way to the AI; silence while nobody may hear it.

    ``private`` tells whether the caller keys in something secret, ``deaf`` whether the AI must not hear the
    line.
    """

    def __init__(
        self,
        settings: Settings,
        audio: AudioFormat,
        hear: Callable[[bytes], None],
        private: Callable[[], bool],
        deaf: Callable[[], bool],
    ) -> None:
        self._hear = hear
        self._private = private
        self._deaf = deaf
        self._silence: Final = audio.silence
        self._law: Law = "alaw" if audio is ALAW else "ulaw"
        self._leveller = (
            Leveller(settings.target_rms, settings.min_rms, settings.max_gain)
            if settings.target_rms
            else None
        )

    def take(self, data: bytes) -> None:
        """Take the caller's sound."""
        if self._private() or self._deaf():
            data = self.silent(data)
        if self._leveller is not None:
            data = encode(self._leveller.process(decode(data, self._law)), self._law)
        self._hear(data)

    def silent(self, audio: bytes) -> bytes:
        """Return as much silence."""
        return self._silence * (len(audio) // len(self._silence))

    def tap(self, recorder: Recorder) -> Discreet:
        """Return a tap for the recorder."""
        return Discreet(recorder, self)

    def discreet(self, audio: bytes) -> bytes:
        """Return the sound, or silence while the caller keys in something secret."""
        return self.silent(audio) if self._private() else audio


class Discreet:
    """A tap for the recorder that hears nothing while the caller keys in something secret."""

    def __init__(self, recorder: Recorder, ear: Ear) -> None:
        self._recorder = recorder
        self._ear = ear

    def caller(self, audio: bytes) -> None:
        """Take the caller's sound."""
        self._recorder.caller(self._ear.discreet(audio))

    def agent(self, audio: bytes) -> None:
        """Take the agent's sound."""
        self._recorder.agent(audio)
