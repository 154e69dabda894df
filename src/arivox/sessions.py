"""The AI's sessions of one call, one after another: a lost one is followed by one that is told what was said.

For providers whose sessions cannot be taken up again. Whoever uses it sees one session that goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Final, cast

import structlog

from arivox.audio.format import PTIME_MS, AudioFormat
from arivox.audio.g711 import Law
from arivox.audio.voice import ONSET_FRAMES, PRE_ROLL_FRAMES, quiet_codes
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
KEPT_FRAMES: Final = 15_000 // PTIME_MS
"""Of the caller's sound, for a session that has not heard it."""
_FACTS: Final = 16

_NOTE: Final = (
    "The connection of this call was lost for a moment. What was said before is in the conversation. "
    "Go on where it stands: do not greet the caller again, and do not speak of the connection."
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
        self._quiet_codes = quiet_codes(cast(Law, audio.law or "ulaw"))
        self._on_event = on_event
        self._new_session = new_session
        self._said = said
        self._count = 0
        self._current = self._make()
        self.name = self._current.name
        self.capabilities = self._current.capabilities
        self._brief = Brief("")
        self._before: list[SessionCounters] = []  # of the sessions that were lost
        self._dropped = 0  # frames of the caller that waited too long for a session
        self._replacing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._begun_at = self._lost_at = 0.0
        self._fruitless = 0
        self._delays = delays(0.5, 4.0)
        # The caller's side.
        # Nobody has written it down or answered it. A provider that resumes keeps its own.
        self._unheard: deque[bytes] = deque(maxlen=0 if self.capabilities.resume else KEPT_FRAMES)
        self._speaking = False  # as far as the AI tells
        self._wordless = False  # they said something that is not written down yet
        self._open = False  # nor answered
        # The agent's side.
        self._answering = False
        self._answers_turn = False  # the answer in progress began after what the caller said
        self._unbegun: deque[str | None] = deque()  # answers that were asked for
        self._request: str | None = None  # what the answer in progress was asked for with
        self._again: list[str] = []  # the same of one that was lost
        self._asked: list[str | None] = []  # answers to ask for, once there is a session
        self._owed = False  # the caller waits for an answer
        # The tools.
        self._calls: dict[str, str] = {}  # names of those that the present session waits for
        self._called = False  # the answer in progress called one
        self._given: list[tuple[str, str]] = []  # results that the agent has not spoken of yet
        self._spoken_of = 0  # so many of them were given before the answer in progress
        self._orphans: dict[str, str] = {}  # names of those that a lost session waited for
        self._answer_orphans = False
        self._facts: deque[str] = deque(maxlen=_FACTS)  # what no transcript tells a new session

    def __repr__(self) -> str:
        return f"<Sessions {self._count}: {self._current!r}>"

    @property
    def counters(self) -> SessionCounters:
        """Return what crossed the sockets of all sessions."""
        total = SessionCounters(reconnects=len(self._before), uplink_dropped_frames=self._dropped)
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
        if self._replacing:
            return bool(self._asked or self._again or self._owed)
        return self._current.busy

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open the session. Raises ProviderError."""
        self._brief = brief
        await self._current.connect(brief)
        self._begun_at = time.monotonic()

    def send_audio(self, data: bytes) -> None:
        """Send the caller's audio; without a session, keep the latest 15 s of it."""
        if not self._replacing:
            self._current.send_audio(data)
        elif len(self._unheard) == KEPT_FRAMES:
            self._dropped += 1
        self._unheard.append(data)

    def speak(self, instructions: str | None = None) -> None:
        """Ask the agent to speak now."""
        if self._replacing:
            self._asked.append(instructions)
        else:
            self._unbegun.append(instructions)
            self._current.speak(instructions)

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Tell what the caller heard before the cut, of what this session has said."""
        self._request = None
        if cancel:
            self._again.clear()
            self._owed = False
        else:
            self._unbegun = deque(asked for asked in self._unbegun if asked is not None)
        if not self._replacing:
            own = (replace(cut, item_id=item) for cut in cuts if (item := self._own_item(cut.item_id)))
            self._current.interrupt(list(own), cancel=cancel)

    def update(self, brief: Brief) -> None:
        """Change instructions and tools."""
        self._brief = brief
        if not self._replacing:
            self._current.update(self._told(brief))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give the result of a tool; one that a lost session called is told to the present one in words."""
        name = self._orphans.pop(call_id, "")
        if not name:
            self._given.append((self._calls.pop(call_id, ""), output))
            self._current.tool_result(call_id, output, answer=answer)
            return
        self._facts.append(_result(name, output))
        self._answer_orphans = self._answer_orphans or answer
        if not self._orphans:
            self.update(self._brief)
            if self._answer_orphans:
                self._answer_orphans = False
                self.speak()

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
                self._called = False
                self._answers_turn = self._open and not self._speaking
                self._spoken_of = len(self._given)
                self._request = self._unbegun.popleft() if self._unbegun else None
            case ResponseDone():
                self._answer_done(event)
            case SpeechStarted() | CallerActive():
                self._speaking = isinstance(event, SpeechStarted)
                self._wordless = self._open = True
            case SpeechStopped():
                self._speaking = False
            case CallerText() if event.text.strip() and not self._speaking:
                self._written_down()
            case ToolCall():
                self._called = True
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

    def _answer_done(self, event: ResponseDone) -> None:
        self._answering = False
        self._request = None
        if not self._current.busy:
            self._unbegun.clear()  # answered within another
        if event.status != "completed" or self._called:
            return
        del self._given[: self._spoken_of]
        # Without turns nobody can tell which words an answer was to.
        if not self._speaking and (self._answers_turn or self.capabilities.full_duplex):
            self._open = False
            self._written_down()

    def _written_down(self) -> None:
        self._wordless = False
        self._unheard.clear()

    def _own_item(self, item_id: str) -> str:
        """Return what the present session calls an item; empty if it is not one of its own."""
        if self._count == 1:
            return item_id
        prefix = _prefix(self._count)
        return item_id.removeprefix(prefix) if item_id.startswith(prefix) else ""

    # --- the next session ---

    def _lost(self, error: ProviderError) -> None:
        now = time.monotonic()
        if not self._replacing:
            self._lost_at = now
            if now - self._begun_at >= LASTED_S:
                self._fruitless = 0
                self._delays = delays(0.5, 4.0)
        self._fruitless += 1
        if self._fruitless > MOST_FRUITLESS:
            self._over = True
            self._on_event(Fault(error))
            return
        log.warning("the AI's session is lost; opening another", error=str(error))
        old = self._current
        if not self._replacing:
            self._take_stock(old.busy)
        self._replacing = True
        self._before.append(old.counters)
        self._current = self._make()
        delay = next(self._delays) if self._fruitless > 1 else 0.0
        task = asyncio.get_running_loop().create_task(self._follow(old, self._current, error, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._speaking:
            self._speaking = False
            self._on_event(SpeechStopped())
        if self._answering:
            self._answering = False
            self._on_event(ResponseDone("cancelled"))

    def _take_stock(self, busy: bool) -> None:
        """See what the next session must be told, asked and sent."""
        self._facts.extend(_result(name, output) for name, output in self._given)
        self._given.clear()
        self._orphans |= self._calls
        self._calls.clear()
        self._asked += self._unbegun
        self._unbegun.clear()
        if self._request is not None:
            self._again.append(self._request)
            self._request = None
        # A tool's result brings the answer by itself, and so do words that are heard again.
        self._owed = bool((busy or self._open) and not self._orphans)
        heard_again = self._wordless or not (self._owed or self._asked or self._again)
        voice = self._first_voice() if heard_again else None
        if voice is None:
            self._written_down()
        else:
            self._unheard = deque(islice(self._unheard, voice, None), KEPT_FRAMES)

    def _first_voice(self) -> int | None:
        """Return the frame from which on the caller is to be heard again; None: there is no voice."""
        loud = 0
        for index, frame in enumerate(self._unheard):
            loud = loud + 1 if frame.translate(None, self._quiet_codes) else 0
            if loud == ONSET_FRAMES:
                return max(0, index + 1 - ONSET_FRAMES - PRE_ROLL_FRAMES)
        return None

    async def _follow(
        self, old: ProviderSession, session: ProviderSession, error: ProviderError, delay: float
    ) -> None:
        """Close the old session, and go on with the one that follows it."""
        try:
            await old.close()
            await asyncio.sleep(delay)
            told = self._told(self._brief)
            await session.connect(replace(told, history=tuple(self._said()), begun=True))
            if session is self._current and not self._over:  # else it was lost at once
                self._go_on(session, told, error.message)
        except ProviderError as refusal:
            self._not_opened(session, refusal)
        except Exception as bug:
            # Without this the call would be left without an AI, and nobody would know.
            log.exception("no other session of the AI")
            self._not_opened(session, ProviderError(self.name, f"no other session: {type(bug).__name__}"))

    def _go_on(self, session: ProviderSession, told: Brief, cause: str) -> None:
        self._replacing = False
        self._begun_at = time.monotonic()
        if self._unheard:
            session.send_audio(b"".join(self._unheard))
        if self._told(self._brief) != told:
            self.update(self._brief)
        asked: Iterable[str | None] = dict.fromkeys((*self._again, *self._asked))
        if self._wordless:
            asked = [instructions for instructions in asked if instructions is not None]
        elif self._owed and not asked:
            asked = [None]
        self._again.clear()
        self._asked.clear()
        self._owed = False
        for instructions in asked:
            self.speak(instructions)
        self._on_event(Reconnected(cause, False, round((self._begun_at - self._lost_at) * 1000)))

    def _not_opened(self, session: ProviderSession, error: ProviderError) -> None:
        if session is self._current and not self._over:
            self._over = True
            self._on_event(Fault(error))

    def _told(self, brief: Brief) -> Brief:
        """Return the brief with what a later session must know besides."""
        if self._count == 1:
            return brief
        at_work = (
            f"The tool {name} that you called is still at work: do not call it again."
            for name in self._orphans.values()
        )
        note = "\n".join((_NOTE, *self._facts, *at_work))
        focus = f"{brief.focus}\n\n{note}" if brief.focus.strip() else ""
        return replace(brief, instructions=f"{brief.instructions}\n\n{note}", focus=focus)


def _result(name: str, output: str) -> str:
    return f"The tool {name} that you called has returned: {output}"


def _prefix(number: int) -> str:
    return f"{number}/"


def _renamed(event: ProviderEvent, number: int) -> ProviderEvent:
    """Tell the items of one session from those of another, which may have the same names."""
    if isinstance(event, AgentAudio | AgentAudioDone | AgentText):
        return replace(event, item_id=_prefix(number) + event.item_id)
    return event
