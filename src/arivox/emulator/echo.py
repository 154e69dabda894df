"""AIs without wits, for measurements: one repeats what it hears, one never stops talking."""

from __future__ import annotations

import numpy as np

from arivox.audio.g711 import Pcm
from arivox.emulator import sound
from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.session import Line, Session


class Echo(Behaviour):
    """Sends the audio of every append straight back as deltas of one endless response.

    With ``group`` > 1 the audio of that many appends comes back in one delta. Where the formats of both
    directions differ the samples are converted.
    """

    def __init__(self, group: int = 1) -> None:
        self._group = group
        self._kept: list[bytes] = []
        self._response: Answer | None = None
        self._session: Session | None = None
        self._last = 0

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Keep the session."""
        del connection, now
        self._session = session

    def wanted(self, response: Answer, now: float) -> None:
        """Use the response the client asked for."""
        del now
        response.begin_speech()
        self._response = response

    def audio(self, data: bytes, now: float) -> None:
        """Send it back."""
        session = self._session
        if session is None:
            return
        response = self._response
        if response is None or response.done:
            response = session.active
            if response is None:
                response = session.create_response()
                self.wanted(response, now)
        if self._group > 1:
            self._kept.append(data)
            if len(self._kept) < self._group:
                return
            data = b"".join(self._kept)
            self._kept.clear()
        heard, spoken = session.input_format, response.audio_format
        if heard is not spoken:
            data = sound.encode(self._converted(sound.decode(data, heard), heard.rate, spoken.rate), spoken)
        response.push(data)

    def _converted(self, pcm: Pcm, source: int, target: int) -> Pcm:
        """Join the samples by straight lines: an echo that does not delay, for measurements."""
        line = np.concatenate([[self._last], pcm])
        self._last = int(pcm[-1]) if len(pcm) else self._last
        places = np.arange(1, len(pcm) * target // source + 1) * (source / target)
        joined: Pcm = np.rint(np.interp(places, np.arange(len(line)), line)).astype(np.int16)
        return joined


class Talker(Behaviour):
    """Talks without end, as one response, from the first ``session.update`` or ``response.create`` on.

    Every ``chunk_ms`` of sound come in one delta, ``speed`` times as fast as real time, until ``limit_ms`` of
    sound are sent (None: never). The sound is a tone, or with ``marked`` the marks of ``sound.marks``.
    """

    def __init__(
        self,
        *,
        speed: float = 1.0,
        chunk_ms: int = 100,
        limit_ms: int | None = None,
        marked: bool = False,
    ) -> None:
        self._speed = speed
        self._chunk_ms = chunk_ms
        self._limit_ms = limit_ms
        self._marked = marked
        self._sent_ms = 0
        self._began = 0.0
        self._response: Answer | None = None
        self._session: Session | None = None

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Keep the session."""
        del connection, now
        self._session = session

    def event(self, event: object, now: float) -> None:
        """Begin to talk once the session is set up."""
        if type(event).__name__ == "SessionUpdate" and self._response is None and self._session is not None:
            self.wanted(self._session.create_response(), now)

    def wanted(self, response: Answer, now: float) -> None:
        """Talk."""
        self._response = response
        self._began = now
        self._sent_ms = 0
        response.begin_speech()
        self._next(now)

    def _next(self, now: float) -> None:
        response, session = self._response, self._session
        if response is None or session is None or response.done:
            return
        while (due := self._began + self._sent_ms / 1000 / self._speed) <= now:
            if self._limit_ms is not None and self._sent_ms >= self._limit_ms:
                response.end_speech()
                response.end(now)
                return
            response.push(self._chunk(response))
            self._sent_ms += self._chunk_ms
        session.timers.at(due, self._next)

    def _chunk(self, response: Answer) -> bytes:
        audio_format = response.audio_format
        if self._marked:
            return sound.marks(audio_format, self._chunk_ms, self._sent_ms)
        # A whole number of periods in every millisecond, so chunks join without a click.
        return sound.tone(audio_format, self._chunk_ms, 1000.0)
