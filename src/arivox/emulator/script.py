"""An AI that does what a test tells it, step by step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from arivox.emulator import sound
from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai.session import OpenAISession
from arivox.emulator.record import Frame, Record
from arivox.emulator.session import Line, Session, Turn

_MS_PER_LETTER: Final = 60

Step = Callable[["Stage"], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Done:
    """One step that was made."""

    name: str
    at: float
    """Monotonic seconds at which its first frame was written, or at which it happened."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What ``Stage.say`` said."""

    response_id: str
    item_id: str
    audio: bytes = field(repr=False)
    first_at: float
    """Monotonic seconds of the first delta with audio."""
    last_at: float
    """And of the last one."""


class Stage:
    """What a script may do. What a step sends is written when it returns, unless it says otherwise."""

    def __init__(self, session: Session, connection: Line) -> None:
        self.session = session
        self.connection = connection
        self.done: list[Done] = []
        """Every step made so far, in order."""
        self._cursor = 0

    @property
    def record(self) -> Record:
        """Return what passed on the session."""
        return self.connection.record

    @property
    def openai(self) -> OpenAISession:
        """Return the session as one of OpenAI Realtime. Raises TypeError if it is another."""
        if not isinstance(self.session, OpenAISession):
            raise TypeError(f"{self.session!r} is no session of OpenAI Realtime")
        return self.session

    # Waiting.

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        await asyncio.sleep(seconds)

    async def wait_for(self, kind: str, timeout: float = 5.0) -> dict[str, Any]:
        """Return the next client event of a type, among those after the last one that was waited for.

        Raises:
            TimeoutError: The client did not send it.
        """
        found: list[Frame] = []

        def there() -> bool:
            for index, frame in enumerate(self.record.frames[self._cursor :], self._cursor):
                if not frame.sent and frame.kind == kind:
                    self._cursor = index + 1
                    found.append(frame)
                    return True
            return False

        try:
            await self.record.until(there, timeout)
        except TimeoutError:
            raise TimeoutError(f"the client sent no {kind} within {timeout} s") from None
        return found[0].event

    async def wanted(self, timeout: float = 5.0) -> Answer:
        """Return the answer that is wanted, as soon as one is: by the client, or after the caller's turn.

        Raises:
            TimeoutError: None was.
        """
        await self.record.until(lambda: self.session.active is not None, timeout)
        return self._running()

    async def wait_audio(self, ms: float, timeout: float = 5.0) -> None:
        """Return once the client has sent ``ms`` more milliseconds of audio."""
        goal = self.session.received_ms + ms
        await self.record.until(lambda: self.session.received_ms >= goal, timeout)

    # Speaking.

    async def say(
        self,
        what: str | bytes,
        *,
        transcript: str | None = None,
        sizes: Iterable[int] | None = None,
        speed: float | None = None,
        end: bool = True,
        wait: bool = True,
    ) -> Spoken | None:
        """Speak in the response that is running, or in a new one.

        ``what`` is audio in the output format, or a text, which becomes marked audio of 60 ms a letter.
        ``sizes`` and ``speed`` are as in ``Answer.say``; ``end`` completes the response. With ``wait`` it
        returns once all is written, else at once with None. If the speech is interrupted it returns what was
        written, or None when no audio was.
        """
        response = self._running()
        audio = what if isinstance(what, bytes) else self.speech(what)
        text = transcript if transcript is not None else what if isinstance(what, str) else ""
        count = len(response.spoken)
        began = self._note("say")
        response.say(audio, text, began, sizes=sizes, speed=speed)
        if end:
            response.end(began)
        if not wait:
            return None
        await self.record.until(lambda: response.done or not response.busy, timeout=60)
        piece = response.spoken[count] if len(response.spoken) > count else None
        if piece is None or piece.first_at is None or piece.last_at is None:
            return None
        return Spoken(response.id, piece.item_id, bytes(piece.audio), piece.first_at, piece.last_at)

    def speech(self, text: str) -> bytes:
        """Return marked audio of 60 ms a letter, in the session's output format."""
        return sound.marks(self.session.output_format, len(text) * _MS_PER_LETTER)

    async def call(self, name: str, arguments: dict[str, Any] | str, *, end: bool = True) -> str:
        """Call a function in the running response, or in a new one; return the call's id."""
        response = self._running()
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        now = self._note("call")
        call_id = response.call(name, text, now)
        if end:
            response.end(now)
        return call_id

    async def end(self) -> None:
        """Complete the running response."""
        self._running().end(self._note("end"))

    async def fail(self, code: str = "server_error", message: str = "The server had an error") -> None:
        """Make the running response, or a new one, a failed one."""
        self._running().fail(code, message, self._note("fail"))

    # Hearing.

    async def speech_started(self) -> None:
        """Find that the caller speaks, whatever the audio holds; this interrupts what is said."""
        self.session.speech_started(self._note("speech_started"))

    async def speech_stopped(self, transcript: str | None = None) -> Turn:
        """Find that the caller's turn is over, and what it was."""
        item = self.session.speech_stopped(self._note("speech_stopped"))
        if transcript is not None:
            self.session.transcribed(item, transcript)
        return item

    # Protocol.

    async def created(self) -> None:
        """Send ``session.created``, in a script that does not ``greet``."""
        self._note("created")
        self.openai.created()

    async def send(self, event: dict[str, Any] | bytes) -> None:
        """Write one frame as it is, right or wrong."""
        self._note("send")
        data = event if isinstance(event, bytes) else msgspec.json.encode(event)
        kind = str(event.get("type", "")) if isinstance(event, dict) else ""
        self.session.write(kind, data)

    async def error(self, code: str, message: str, type_: str = "invalid_request_error") -> None:
        """Send an ``error`` event."""
        self._note("error")
        self.openai.error(RequestError(code, message, type=type_))

    async def rate_limits(self, remaining: int) -> None:
        """Send ``rate_limits.updated``."""
        self._note("rate_limits")
        self.openai.send_rate_limits(remaining)

    # Faults of the connection.

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket."""
        self._note("close")
        self.session.close(code, reason)

    async def abort(self) -> None:
        """Reset the TCP connection."""
        self._note("abort")
        self.connection.abort()

    async def stall(self) -> None:
        """Hold back every frame from now on."""
        self._note("stall")
        self.connection.stall()

    async def resume(self) -> None:
        """Send what was held back, and go on."""
        self._note("resume")
        self.connection.resume()

    async def stop_reading(self) -> None:
        """Leave what the client sends in the socket."""
        self._note("stop_reading")
        self.connection.stop_reading()

    async def resume_reading(self) -> None:
        """Read again."""
        self._note("resume_reading")
        self.connection.resume_reading()

    def _running(self) -> Answer:
        return self.session.active or self.session.create_response()

    def _note(self, name: str) -> float:
        now = time.monotonic()
        self.done.append(Done(name, now))
        return now


class Script(Behaviour):
    """Plays its steps once the socket is open::

        Script(
            lambda s: s.wait_for("response.create"),
            lambda s: s.say("Good morning.", speed=10),
        )

    A step may as well be one ``async def scenario(stage)``. What a step raises, the server raises when it
    stops. ``listens`` turns on server VAD; ``greets`` False leaves ``session.created`` to the script;
    ``answers`` False ignores ``response.create``; ``http_status`` refuses the upgrade.
    """

    def __init__(
        self,
        *steps: Step,
        listens: bool = False,
        greets: bool = True,
        answers: bool = True,
        http_status: int = 101,
    ) -> None:
        self.steps = steps
        self.listens = listens
        self.greets = greets
        self.answers = answers
        self.http_status = http_status
        self.stage: Stage | None = None
        """Set once the socket is open."""
        self._task: asyncio.Task[None] | None = None

    def opened(self, session: Session, connection: Line, now: float) -> None:
        """Begin to play."""
        del now
        self.stage = Stage(session, connection)
        self._task = asyncio.create_task(self._play(self.stage))

    async def finished(self) -> None:
        """Return when every step was made.

        Raises:
            Exception: What a step raised.
        """
        if self._task is not None:
            await asyncio.shield(self._task)

    async def closed(self) -> None:
        """Stop playing."""
        task = self._task
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _play(self, stage: Stage) -> None:
        for step in self.steps:
            await step(stage)


def in_turn(*behaviours: Behaviour) -> Callable[[], Behaviour]:
    """Return a factory for ``EmulatorServer``: each connection takes the next behaviour.

    Connections after the last one are refused with HTTP 503.
    """
    left = iter(behaviours)
    return lambda: next(left, Script(http_status=503))
