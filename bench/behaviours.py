"""The AIs of the benchmark. Each notes when it heard and said what, on the monotonic clock of the machine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, cast

import msgspec
import numpy as np

from arivox.emulator import sound
from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.echo import Echo
from arivox.emulator.openai.messages import ItemDelete, ItemTruncate
from arivox.emulator.session import Line, Session
from arivox.testing import signal
from arivox.testing.marked import MarkedStream

LOUD_DBFS: Final = -40.0
_LOUD: Final = signal.amplitude(LOUD_DBFS)
NEXT_ANSWER_EARLY_S: Final = 0.5


class Note(msgspec.Struct, frozen=True):
    """Something that happened in the AI: at ``at`` seconds of ``time.monotonic``."""

    what: str
    at: float
    value: float = 0.0
    """Frequency in Hz, or milliseconds: what the note is about."""


TakeNote = Callable[[str, float, float], None]


class Repeater(Echo):
    """Echoes every frame. Notes ``onset`` for each tone that begins, with its frequency."""

    def __init__(self, note: TakeNote) -> None:
        super().__init__()
        self._opened: Session
        self._note = note
        self._burst = bytearray()
        self._onset_at = 0.0

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Keep the session."""
        super().opened(session, connection, now)
        self._opened = session

    def audio(self, data: bytes, now: float) -> None:
        """Send it back first, then look at it."""
        super().audio(data, now)
        heard = self._opened.input_format
        loud = np.flatnonzero(np.abs(sound.decode(data, heard).astype(np.int32)) > _LOUD)
        if len(loud):
            if not self._burst:
                self._onset_at = now + int(loud[0]) / heard.rate
            self._burst += data
        elif self._burst:
            hz = signal.dominant_frequency(sound.decode(self._burst, heard), heard.rate)
            self._note("onset", self._onset_at, hz)
            self._burst.clear()


class Speaker(Behaviour):
    """Says something when it is asked to. Notes ``delta`` when the first audio of an answer is written."""

    def __init__(self, note: TakeNote) -> None:
        self._note = note
        self._opened: Session | None = None

    @property
    def session(self) -> Session:
        """Return the session, which is open."""
        if self._opened is None:
            raise RuntimeError("the session is not open yet")
        return self._opened

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Keep the session."""
        self._opened = session

    def tone(self, response: Answer, hz: float, seconds: float, speed: float) -> None:
        """Say a tone as the whole answer, and note its frequency."""
        self.speak(response, sound.tone(response.audio_format, seconds * 1000, hz), speed, hz)

    def speak(self, response: Answer, audio: bytes, speed: float, value: float = 0.0) -> None:
        """Say ``audio`` as the whole answer, ``speed`` times as fast as real time."""
        at = time.monotonic()
        self._note("delta", at, value)
        response.say(audio, "", at, speed=speed)
        response.end(at)


class Monologue(Speaker):
    """Never stops talking: says ``seconds`` at ``speed``, and again before they are over, as one answer.

    It is written in pieces of ``chunk_ms``, or as the emulator does it.
    """

    def __init__(self, note: TakeNote, seconds: float, speed: float, chunk_ms: int = 0) -> None:
        super().__init__(note)
        self._seconds = seconds
        self._speed = speed
        self._chunk_ms = chunk_ms

    def wanted(self, response: Answer, now: float) -> None:
        """Say it, and plan to say it again."""
        if response.done:
            return
        form = response.audio_format
        sizes = [form.bytes_for(self._chunk_ms)] if self._chunk_ms else None
        response.say(sound.tone(form, self._seconds * 1000, 450.0), "", now, sizes=sizes, speed=self._speed)
        again = now + self._seconds - NEXT_ANSWER_EARLY_S
        self.session.timers.at(again, lambda then: self.wanted(response, then))


class Counter(Speaker):
    """Gives numbered answers of ``seconds``, one after another: "Answer 1", "Answer 2". Notes ``answer``."""

    _REST_S = 0.3

    def __init__(self, note: TakeNote, seconds: float) -> None:
        super().__init__(note)
        self._seconds = seconds
        self._count = 0

    def wanted(self, response: Answer, now: float) -> None:
        """Give the next answer, and plan the one after it."""
        self._count += 1
        self._note("answer", now, self._count)
        tone = sound.tone(response.audio_format, self._seconds * 1000, 450.0)
        response.say(tone, f"Answer {self._count}", now, speed=4.0)
        response.end(now)
        self.session.timers.at(now + self._seconds + self._REST_S, self._again)

    def _again(self, now: float) -> None:
        self.wanted(self.session.create_response(), now)


class Greeter(Speaker):
    """Greets at once, then gives ``answers`` short answers out of silence, each with a pitch of its own."""

    def __init__(self, note: TakeNote, answers: int) -> None:
        super().__init__(note)
        self._left = iter(signal.PROBES_HZ[: answers + 1])

    def wanted(self, response: Answer, now: float) -> None:
        """Say the next answer at once, and plan the one after it."""
        hz = next(self._left, None)
        if hz is None:
            return
        self.tone(response, hz, 0.2, 10.0)
        # At any phase of the packet clock.
        self.session.timers.at(now + random.uniform(0.45, 0.55), self._again)

    def _again(self, now: float) -> None:
        self.wanted(self.session.create_response(), now)


class Reader(Speaker):
    """Reads a marked stream of ``seconds`` at ``speed``, in the greeting or in the answer after a short one.

    ``interrupt_s`` after its start the caller is found to speak: notes ``speech_started``, then what the
    client says it played of it, as ``truncate`` with the milliseconds or ``delete``. One that ``paces`` its
    speech stops by itself: it notes when the sound ends that it has written by then.
    """

    def __init__(
        self,
        note: TakeNote,
        seconds: float,
        speed: float,
        interrupt_s: float | None = None,
        *,
        in_greeting: bool = True,
        paces: bool = False,
    ) -> None:
        super().__init__(note)
        self._paces = paces
        self._seconds = seconds
        self._speed = speed
        self._interrupt_s = interrupt_s
        self._greeted = in_greeting

    def wanted(self, response: Answer, now: float) -> None:
        """Read, or greet first."""
        if not self._greeted:
            self._greeted = True
            self.tone(response, signal.PROBES_HZ[0], 0.2, 10.0)
            self.session.timers.at(now + 0.5, self._caller_asks)
            return
        pcm = MarkedStream(self._seconds).pcm(response.audio_format.rate)
        self.speak(response, sound.encode(pcm, response.audio_format), self._speed)
        if self._interrupt_s is not None:
            # At any phase of the packet clock.
            at = now + self._interrupt_s + random.uniform(0, 0.02)
            self.session.timers.at(at, lambda then: self._interrupt(response, then))

    def event(self, event: object, now: float) -> None:
        """Note what the client says it played."""
        if isinstance(event, ItemTruncate):
            self._note("truncate", now, event.audio_end_ms)
        elif isinstance(event, ItemDelete):
            self._note("delete", now, 0.0)

    def _caller_asks(self, now: float) -> None:
        self.session.speech_started(now)
        self.session.speech_stopped(now)

    def _interrupt(self, response: Answer, now: float) -> None:
        stops_at = time.monotonic()
        if self._paces:
            spoken = response.spoken[-1]
            written_s = response.audio_format.ms(len(spoken.audio)) / 1000
            stops_at = max(stops_at, (spoken.first_at or now) + written_s)
        self._note("speech_started", stops_at, 0.0)
        self.session.speech_started(now)


Option = float | int | bool

BEHAVIOURS: Final = {cls.__name__: cls for cls in (Repeater, Monologue, Counter, Greeter, Reader)}


def make(name: str, note: TakeNote, options: dict[str, Option]) -> Behaviour:
    """Return a new AI of the class ``name``."""
    return cast(Callable[..., Behaviour], BEHAVIOURS[name])(note, **options)
