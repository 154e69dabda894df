"""The audio that the caller sends: the buffer that is not committed yet, and the turns found in it."""

from __future__ import annotations

from dataclasses import dataclass

from arivox.audio.format import AudioFormat
from arivox.emulator import sound
from arivox.emulator.vad import EnergyVad, SpeechStarted, SpeechStopped


@dataclass(frozen=True, slots=True)
class Detection:
    """How turns are found in the audio; see ``vad.EnergyVad``."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


class Hearing:
    """Input buffer and turn detection. Milliseconds count all audio ever appended in the session.

    When it does not ``listen``, turns are not looked for, and audio is kept only if turn detection is off
    (when the client will commit it).
    """

    def __init__(self, detection: Detection | None, form: AudioFormat, *, listen: bool) -> None:
        self.received_ms = 0.0
        self._listen = listen
        self._buffer = bytearray()
        self._begins_ms = 0.0
        self._detection = detection
        self._format = form
        self._vad = self._new_vad()

    def configure(self, detection: Detection | None, form: AudioFormat) -> None:
        """Take new settings; what was buffered is forgotten if they differ from the old ones."""
        if (detection, form) != (self._detection, self._format):
            self._detection = detection
            self._format = form
            self.clear()
            self._vad = self._new_vad()

    @property
    def finds_turns(self) -> bool:
        """Return whether turns are looked for."""
        return self._vad is not None

    @property
    def begins_ms(self) -> int:
        """Return where the buffer begins."""
        return int(self._begins_ms)

    @property
    def buffered_ms(self) -> float:
        """Return how much is in the buffer."""
        return self._format.ms(len(self._buffer))

    def append(self, audio: bytes) -> list[SpeechStarted | SpeechStopped]:
        """Take the next audio; return where turns began or ended in it."""
        self.received_ms += self._format.ms(len(audio))
        if self._vad is None:
            if self._detection is None:
                self._buffer += audio
            return []
        self._buffer += audio
        events = self._vad.feed(sound.decode(audio, self._format))
        if not events and not self._vad.speaking:
            self._drop(len(self._buffer) - self._format.bytes_for(self._vad.reach_back_ms))
        return events

    def cut(self, start_ms: int, end_ms: int) -> bytes:
        """Return what lies between two places, as far as it is still there."""
        first = self._format.bytes_for(max(start_ms - self._begins_ms, 0))
        last = self._format.bytes_for(max(end_ms - self._begins_ms, 0))
        return bytes(self._buffer[first:last])

    def take(self) -> bytes:
        """Return everything in the buffer, and begin anew: a turn that was going on is over."""
        audio = bytes(self._buffer)
        self.clear()
        self._vad = self._new_vad()
        return audio

    def clear(self) -> None:
        """Forget what is in the buffer."""
        self._buffer.clear()
        self._begins_ms = self.received_ms

    def _drop(self, size: int) -> None:
        size = min(size, len(self._buffer))
        if size > 0:
            del self._buffer[:size]
            self._begins_ms += self._format.ms(size)

    def _new_vad(self) -> EnergyVad | None:
        detection = self._detection
        if not self._listen or detection is None:
            return None
        return EnergyVad(
            self._format.rate,
            detection.threshold,
            detection.prefix_padding_ms,
            detection.silence_duration_ms,
            position_ms=int(self.received_ms),
        )
