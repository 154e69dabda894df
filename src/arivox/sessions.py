"""The AI's sessions of one call, one after another: a lost one is followed by one that is told what was said.

For providers whose sessions cannot be taken up again. Whoever uses it sees one session that goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Final

import structlog

from arivox.audio.format import PTIME_MS, AudioFormat
from arivox.backoff import delays
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    Fault,
    OnProviderEvent,
    ProviderEvent,
    ProviderSession,
    Reconnected,
    ResponseDone,
    ResponseStarted,
    SessionCounters,
    SessionFactory,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallsCancelled,
    Utterance,
)
from arivox.settings import Settings

log = structlog.get_logger()

MOST_FRUITLESS: Final = 3
"""So many sessions in a row may be lost early; the next one that is ends the call."""
LASTED_S: Final = 20.0
"""A session that held this long was no failure."""
_BEFORE_FRAMES: Final = 1000 // PTIME_MS  # of the caller's sound, before the AI noticed that they speak
_KEPT_FRAMES: Final = 15_000 // PTIME_MS

_GO_ON: Final = (
    "The connection was lost for a moment, and the caller may not have heard your last answer. "
    "Go on where the conversation stands, in one or two sentences, without speaking of the connection."
)
_RESULT: Final = (
    "The tool {name} that you called before the connection was lost has returned: {output}\n"
    "Go on with that, without speaking of the connection."
)


class Sessions:
    """A session that outlives its connection. See ``providers.base.ProviderSession`` for the verbs.

    ``said`` returns the conversation so far, the oldest first: each new session is told of it.
    """

    def __init__(
        self,
        settings: Settings,
        audio: AudioFormat,
        on_event: OnProviderEvent,
        new_session: SessionFactory,
        said: Callable[[], Sequence[Utterance]],
    ) -> None:
        self._settings = settings
        self._audio = audio
        self._on_event = on_event
        self._new_session = new_session
        self._said = said
        self._count = 0
        self._current = self._make()
        self.name = self._current.name
        self.capabilities = self._current.capabilities
        self._brief = Brief("")
        self._before: list[SessionCounters] = []  # of the sessions that were lost
        self._replacing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._begun_at = self._lost_at = 0.0
        self._fruitless = 0
        self._delays = delays(0.5, 4.0)
        self._recent: deque[bytes] = deque(maxlen=_BEFORE_FRAMES)
        self._words: deque[bytes] | None = None  # of the caller, which nobody has answered or written down
        self._speaking = False  # the caller, as far as the AI tells
        self._answering = False
        self._owed = False  # the caller waits for an answer
        self._asked: list[str | None] = []  # answers to ask for, once there is a session
        self._request: str | None = None  # what the latest answer was asked for with
        self._unbegun = False  # and it has not begun
        self._calls: dict[str, str] = {}  # names of the tools that the present session waits for
        self._orphans: dict[str, str] = {}  # and of those that a lost one did

    def __repr__(self) -> str:
        return f"<Sessions {self._count}: {self._current!r}>"

    @property
    def counters(self) -> SessionCounters:
        """Return what crossed the sockets of all sessions."""
        total = SessionCounters(reconnects=len(self._before))
        for counters in (*self._before, self._current.counters):
            for item in fields(counters):
                if item.name != "usage":
                    value = getattr(total, item.name) + getattr(counters, item.name)
                    setattr(total, item.name, value)
            for name, count in counters.usage.items():
                total.usage[name] = total.usage.get(name, 0) + count
        return total

    @property
    def busy(self) -> bool:
        """Return whether an answer is in progress, or asked for and not begun."""
        return bool(self._asked or (self._replacing and self._owed) or self._current.busy)

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open the session. Raises ProviderError."""
        self._brief = brief
        await self._current.connect(brief)
        self._begun_at = time.monotonic()

    def send_audio(self, data: bytes) -> None:
        """Send the caller's audio."""
        self._recent.append(data)
        if self._words is not None:
            self._words.append(data)
        self._current.send_audio(data)

    def speak(self, instructions: str | None = None) -> None:
        """Ask the agent to speak now."""
        if self._replacing:
            self._asked.append(instructions)
        else:
            self._request, self._unbegun = instructions, True
            self._current.speak(instructions)

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Tell what the caller heard before the cut, of what this session has said."""
        if not self._replacing:
            own = (replace(cut, item_id=item) for cut in cuts if (item := self._own_item(cut.item_id)))
            self._current.interrupt(list(own), cancel=cancel)
        elif cancel:
            self._owed = False
            self._asked.clear()

    def update(self, brief: Brief) -> None:
        """Change instructions and tools."""
        self._brief = brief
        if not self._replacing:
            self._current.update(brief)

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give the result of a tool; one that a lost session called is told to the present one in words."""
        name = self._orphans.pop(call_id, "")
        if not name:
            self._calls.pop(call_id, None)
            self._current.tool_result(call_id, output, answer=answer)
        elif answer:
            self.speak(_RESULT.format(name=name, output=output))

    async def close(self) -> None:
        """End the session, and give up opening another. May be called twice."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._current.close()

    # --- from the present session ---

    def _make(self) -> ProviderSession:
        number = self._count = self._count + 1
        return self._new_session(self._settings, self._audio, lambda event: self._hear(number, event))

    def _hear(self, number: int, event: ProviderEvent) -> None:
        if number > 1:
            event = _renamed(event, number)
        if number != self._count:
            if isinstance(event, AgentText | CallerText):
                self._on_event(event)  # the last words of one that is lost
            return
        match event:
            case AgentAudio():
                pass  # most of all events
            case ResponseStarted():
                self._answering = True
                self._owed = self._unbegun = False
                self._words = None
            case ResponseDone():
                self._answering = False
                self._request = None
            case SpeechStarted() | CallerActive():
                self._speaking = isinstance(event, SpeechStarted)
                if self._words is None:
                    self._words = deque(self._recent, _KEPT_FRAMES)
            case SpeechStopped():
                self._speaking = False
            case CallerText():
                # Another session need not hear what it can be told.
                self._owed = self._owed or self._words is not None
                self._words = None
            case ToolCall():
                self._calls[event.call_id] = event.name
            case ToolCallsCancelled():
                for call_id in event.call_ids:
                    self._calls.pop(call_id, None)
            case Fault() if event.error.lost and not self._over:
                self._lost(event.error)
                return
            case Fault():
                self._over = self._over or event.error.fatal
        self._on_event(event)

    def _own_item(self, item_id: str) -> str:
        """Return what the present session calls an item; empty if it is not one of its own."""
        if self._count == 1:
            return item_id
        prefix = _prefix(self._count)
        return item_id.removeprefix(prefix) if item_id.startswith(prefix) else ""

    # --- the next session ---

    def _lost(self, error: ProviderError) -> None:
        now = time.monotonic()
        if now - self._begun_at >= LASTED_S:
            self._fruitless = 0
            self._delays = delays(0.5, 4.0)
        self._fruitless += 1
        if self._fruitless > MOST_FRUITLESS:
            self._on_event(Fault(error))
            return
        log.warning("the AI's session is lost; opening another", error=str(error))
        old = self._current
        self._orphans |= self._calls
        self._calls.clear()
        # A tool's result brings the answer by itself.
        self._owed = not self._orphans and (old.busy or self._owed or self._words is not None)
        if self._unbegun or self._request is not None:
            self._asked.insert(0, self._request)
            self._request, self._unbegun = None, False
        self._before.append(old.counters)
        self._current = self._make()
        if self._words:
            self._current.send_audio(b"".join(self._words))
        delay = next(self._delays) if self._fruitless > 1 else 0.0
        if not self._replacing:
            self._lost_at = now
        self._replacing = True
        task = asyncio.get_running_loop().create_task(self._follow(old, self._current, error, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._speaking:
            self._speaking = False
            self._on_event(SpeechStopped())
        if self._answering:
            self._answering = False
            self._on_event(ResponseDone("cancelled"))

    async def _follow(
        self, old: ProviderSession, session: ProviderSession, error: ProviderError, delay: float
    ) -> None:
        """Close the old session, and go on with the one that follows it."""
        await old.close()
        await asyncio.sleep(delay)
        brief = self._brief
        try:
            await session.connect(replace(brief, history=tuple(self._said())))
        except ProviderError as refusal:
            self._not_opened(session, refusal)
            return
        except Exception as bug:
            # Without this the call would be left without an AI, and nobody would know.
            log.exception("no other session of the AI")
            self._not_opened(session, ProviderError(self.name, f"no other session: {type(bug).__name__}"))
            return
        if session is not self._current:
            return  # it was lost at once
        self._replacing = False
        self._begun_at = time.monotonic()
        self._on_event(Reconnected(error.message, False, round((self._begun_at - self._lost_at) * 1000)))
        if self._brief is not brief:
            session.update(self._brief)
        asked, self._asked = self._asked, []
        if self._owed and not asked and self._words is None:
            asked = [_GO_ON]
        self._owed = False
        for instructions in asked:
            self.speak(instructions)

    def _not_opened(self, session: ProviderSession, error: ProviderError) -> None:
        if session is self._current:
            self._replacing = False
            self._on_event(Fault(error))


def _prefix(number: int) -> str:
    return f"{number}/"


def _renamed(event: ProviderEvent, number: int) -> ProviderEvent:
    """Tell the items of one session from those of another, which may have the same names."""
    if isinstance(event, AgentAudio | AgentAudioDone | AgentText):
        return replace(event, item_id=_prefix(number) + event.item_id)
    return event
