"""The audio towards the client as one stream in real time: speech where there is some, else silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from arivox.audio.format import AudioFormat
from arivox.emulator.openai_live.options import LiveOptions
from arivox.emulator.openai_live.outlet import LiveOutlet, audio_frame
from arivox.emulator.timers import Timer, Timers

_CATCH_UP_S: Final = 1.0  # a silence that is later than this is not made up for


class OutputStream:
    """Knows up to when the client has audio to play, if it plays everything in the order it came.

    While somebody speaks (between ``hold`` and ``release``) no silence is written. The place of audio on the
    session's timeline is where the caller's audio has come to, but never before what was written already.
    """

    def __init__(
        self,
        outlet: LiveOutlet,
        timers: Timers,
        form: AudioFormat,
        options: LiveOptions,
        received_ms: Callable[[], float],
    ) -> None:
        self.format = form
        self.frame_bytes = form.bytes_for(options.frame_ms)
        self._outlet = outlet
        self._timers = timers
        self._received_ms = received_ms
        self._frame_s = options.frame_ms / 1000
        self._lead_s = options.lead_ms / 1000
        self._continuous = options.continuous
        self._frame_ms = form.ms(self.frame_bytes)
        self._silence = audio_frame(form.silence * (self.frame_bytes // form.sample_bytes))
        self._until = 0.0
        self._position_ms = 0.0
        self._timer: Timer | None = None

    @property
    def until(self) -> float:
        """Return when the audio written so far will have been played (monotonic seconds)."""
        return self._until

    def start(self, now: float) -> None:
        """Begin the stream."""
        self._until = now
        self.release()

    def due(self, now: float) -> float:
        """Return when the next frame should be written: at most one frame's time after ``now``.

        Before that other frames are due; what a behaviour has sent in a burst does not count.
        """
        ahead = now + self._lead_s + self._frame_s
        return min(max(self._until, now), ahead) - self._lead_s

    def hold(self, now: float) -> None:
        """Write no silence: somebody speaks."""
        self._until = max(self._until, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        """Write silence again after what was said."""
        if self._continuous and self._timer is None:
            self._timer = self._timers.at(self._until - self._lead_s, self._fill)

    def place(self, size: int) -> tuple[int, int]:
        """Return from where to where on the timeline the next ``size`` bytes will lie."""
        start = max(self._position_ms, self._received_ms())
        return int(start), int(start + self.format.ms(size))

    def write(self, audio: bytes) -> None:
        """Write the next audio at once."""
        self._advance(self.format.ms(len(audio)))
        self._outlet.write_audio(audio_frame(audio))

    def _advance(self, ms: float) -> None:
        self._position_ms = max(self._position_ms, self._received_ms()) + ms
        self._until += ms / 1000

    def _fill(self, now: float) -> None:
        self._timer = None
        if self._until < now - _CATCH_UP_S:
            self._until = now
        while self._until - self._lead_s <= now:
            self._advance(self._frame_ms)
            self._outlet.write_audio(self._silence)
        self.release()
