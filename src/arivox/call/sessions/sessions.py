"""A session that outlives its connection: a lost one is followed by one that is told what was said.

For providers whose sessions cannot be taken up again. Whoever uses it sees one session that goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Final, cast

import structlog

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law
from arivox.backoff import delays
from arivox.call.sessions.errands import Errands
from arivox.call.sessions.requests import Requests
from arivox.call.sessions.unanswered import Unanswered
from arivox.call.voice import Voice
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    ConnectionLost,
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
from arivox.settings.settings import Settings

log = structlog.get_logger()

MOST_FRUITLESS: Final = 3
"""So many sessions in a row may be lost early; the next one that is ends the call."""
LASTED_S: Final = 20.0
"""A session that held this long was no failure."""
USEFUL_S: Final = 5.0
"""Nor was one that held this long, and in which the agent spoke."""

_CLOSE_CODES: Final = 1000  # smaller numbers are of HTTP

MUTE: Final = "mute"
PLANNED: Final = "planned"

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
        self._on_event = on_event
        self._new_session = new_session
        self._said = said
        self._count = 0
        self._current = self._make()
        self.name = self._current.name
        self.capabilities = self._current.capabilities
        self._brief = Brief("")
        self._before: list[SessionCounters] = []  # of the sessions that were lost
        self._unclosed: list[ProviderSession] = []  # of the same
        self._reconnects = 0
        self._replacing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._begun_at = self._lost_at = 0.0
        self._fruitless = 0
        self._delays = delays(0.5, 4.0)
        self._caller = Unanswered(cast(Law, audio.law or "ulaw"), full_duplex=self.capabilities.full_duplex)
        self._requests = Requests()
        self._errands = Errands(parallel=not self.capabilities.full_duplex)
        self._answering = False
        self._voice = Voice(audio, sifted=self.capabilities.full_duplex)  # of the answer in progress
        self._spoke = False  # the agent, in the present session
        self._silences = 0  # messages of it in which there was nothing but silence
        self._owed = False  # an answer that nothing brings by itself

    def __repr__(self) -> str:
        return f"<Sessions {self._count}: {self._current!r}>"

    @property
    def counters(self) -> SessionCounters:
        """Return what crossed the sockets of all sessions."""
        total = SessionCounters(reconnects=self._reconnects, uplink_dropped_frames=self._caller.dropped)
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
            return bool(self._requests) or self._owed
        return self._current.busy

    @property
    def sounds(self) -> bool:
        """Return whether there was a sound in the latest that came of the answer in progress."""
        return self._voice.sounds

    @property
    def messages_in(self) -> int:
        """Return how many messages the session in use has sent, but for silence: a mute one sends none."""
        return self._current.counters.messages_in - self._silences

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open the session. Raises ProviderError."""
        self._brief = brief
        await self._current.connect(brief)
        self._begun_at = time.monotonic()

    def send_audio(self, data: bytes) -> None:
        """Send the caller's audio; without a session, keep the latest 15 s of it."""
        if not self.capabilities.resume:  # else the session keeps its own
            self._caller.add(data, sent=not self._replacing)
        if not self._replacing:
            self._current.send_audio(data)

    def speak(self, instructions: str | None = None) -> None:
        """Ask the agent to speak now."""
        if self._replacing:
            self._requests.postponed(instructions)
        else:
            self._requests.made(instructions)
            self._current.speak(instructions)

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Tell what the caller heard before the cut, of what this session has said."""
        self._requests.interrupted(cancel=cancel)
        if cancel:
            self._owed = False
        if not self._replacing:
            own = (replace(cut, item_id=item) for cut in cuts if (item := self._own_item(cut.item_id)))
            self._current.interrupt(list(own), cancel=cancel)

    def update(self, brief: Brief) -> None:
        """Change instructions and tools."""
        self._brief = brief
        if not self._replacing:
            self._current.update(self._told(brief))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> bool:
        """Give the result of a tool; the present session is told in words of one that it did not call.

        Return whether the agent is to speak of it now.
        """
        joined = self._errands.orphan_returned(call_id, output, answer=answer)
        if joined is None:
            for known in (call_id, *self._errands.returned(call_id, output)):
                self._current.tool_result(known, output, answer=answer)
            return answer
        if not (joined or self._errands.orphaned):
            self.update(self._brief)
        if not self._replacing:
            # A session that goes on over other connections knows the call: it is not at work any more.
            orphan = [call_id] if self.capabilities.resume else []
            for known in (*orphan, *joined):
                self._current.tool_result(known, output, answer=answer and known in joined)
        if not self._errands.orphaned and self._errands.answer_due():
            self.speak()
            return True
        return bool(joined) and answer

    def tool_goes_on(self, call_id: str) -> None:
        """Hear that a tool goes on though the agent took its call back: it is told of the result."""
        self._errands.goes_on(call_id)

    def end_turn(self) -> None:
        """Take the caller's turn for ended, and have it answered."""
        self._caller.speech_stopped()
        if not self._replacing:
            self._requests.made(None)
            self._current.end_turn()

    def renew(self, cause: str, *, mute: bool = True, again: bool = False) -> None:
        """Give the connection up, which is ``mute`` or ends soon, and go on over another or a new session.

        With ``again`` what is owed is an answer to the caller, who is heard again there. What was asked of
        this one is not: whoever wants it asks again.
        """
        if self._replacing or self._over:
            return
        if self.capabilities.resume:
            self._current.renew(cause)
            return
        self._requests.dropped()
        code = MUTE if mute else PLANNED
        self._lost(ProviderError(self.name, cause, code=code, lost=True), again=again)

    async def close(self) -> None:
        """End the session, and give up opening another. May be called twice."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for session in (*self._unclosed, self._current):
            await session.close()

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
                self._voice.add(event.data)  # most of all events
                self._spoke = self._spoke or self._voice.heard
                self._silences += not (self._voice.sounds or self.capabilities.full_duplex)
            case ResponseStarted():
                self._answering = True
                self._voice.restart()
                self._caller.answer_begins()
                self._errands.answer_begins()
                self._requests.answer_begins()
            case ResponseDone():
                self._answer_done(event)
            case SpeechStarted():
                self._caller.speech_started(event.item_id)
            case SpeechStopped():
                self._caller.speech_stopped()
            case CallerActive():
                self._caller.active(earlier=event.earlier)
            case CallerText():
                self._caller.written_down(event.text, event.unwritten_ms, event.item_id)
            case ToolCall():
                if self._repeated(event):
                    return
            case ToolCallsCancelled():
                self._errands.cancelled(event.call_ids)
            case ConnectionLost():
                self._connection_lost()
            case Fault() if event.error.lost and not self._over:
                self._lost(event.error)
                return
            case Fault():
                self._over = self._over or event.error.fatal
        self._on_event(event)

    def _answer_done(self, event: ResponseDone) -> None:
        self._answering = False
        self._requests.answer_ends(busy=self._current.busy)
        # One without a sound tells the caller nothing: they still wait.
        if event.status == "completed" and self._voice.heard and self._errands.answered():
            self._caller.answered()
        self._voice.restart()

    def _repeated(self, call: ToolCall) -> bool:
        """Hear that the agent calls a tool. Return whether it need not run for that: it has, or it does."""
        if self._errands.waited_for(call.call_id, call.name, call.arguments):
            log.info("the AI repeats a call of a tool that is at work; it runs once", tool=call.name)
            return True
        output = self._errands.called(call.call_id, call.name, call.arguments)
        if output is not None:
            log.info("the AI calls a tool again whose result it was not told; it is told now", tool=call.name)
            self._current.tool_result(call.call_id, output)
            return True
        if self._errands.repeats(call.call_id):
            log.info("the AI calls a tool again that is at work; it runs once", tool=call.name)
            return True
        return False

    def _connection_lost(self) -> None:
        """Hear that the session goes on over another connection, to which what was in progress is unknown."""
        self._errands.session_lost()
        told = self._told(self._brief)
        if told != self._brief:
            self._current.update(told)

    def _own_item(self, item_id: str) -> str:
        """Return what the present session calls an item; empty if it is not one of its own."""
        if self._count == 1:
            return item_id
        prefix = _prefix(self._count)
        return item_id.removeprefix(prefix) if item_id.startswith(prefix) else ""

    # --- the next session ---

    def _lost(self, error: ProviderError, *, again: bool = False) -> None:
        now = time.monotonic()
        lasted = USEFUL_S if self._spoke else LASTED_S
        if not self._replacing and now - self._begun_at >= lasted:
            self._fruitless = 0
            self._delays = delays(0.5, 4.0)
        self._fruitless += 1
        if self._fruitless > MOST_FRUITLESS:
            self._end(error)
            return
        if error.code != PLANNED:
            log.warning("the AI's session is lost; opening another", error=str(error))
        was_speaking = self._caller.speaking
        old, first = self._current, not self._replacing
        if first:
            self._replacing = True
            self._lost_at = now
            self._take_stock(old.busy, rejected=error.rejected, again=again)
        self._before.append(old.counters)
        self._unclosed.append(old)
        self._current = self._make()
        self._spoke = False
        self._silences = 0
        delay = next(self._delays) if self._fruitless > 1 else 0.0
        task = asyncio.get_running_loop().create_task(self._follow(old, self._current, error, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if first:
            self._on_event(ConnectionLost())
        if was_speaking:
            self._on_event(SpeechStopped())
        if self._answering:
            self._answering = False
            self._on_event(ResponseDone("cancelled"))

    def _take_stock(self, busy: bool, *, rejected: bool, again: bool) -> None:
        """See what the next session must be told, asked and sent.

        After one that was ended for what was said in it, the caller is not heard again: so would be the next.
        """
        self._errands.session_lost()
        self._requests.session_lost()
        # A tool's result brings the answer by itself.
        self._owed = (busy or self._caller.open or again) and not self._errands.orphaned
        if rejected:
            self._caller.forget()
        elif again:
            self._caller.heard_again()
        else:
            self._caller.session_lost(alone=not (self._owed or self._requests))

    async def _follow(
        self, old: ProviderSession, session: ProviderSession, error: ProviderError, delay: float
    ) -> None:
        """Close the old session, and go on with the one that follows it."""
        try:
            await old.close()
            self._unclosed.remove(old)
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
        self._reconnects += 1
        self._begun_at = time.monotonic()
        sound = self._caller.sound()
        if sound:
            session.send_audio(sound, keep=True)
        if self._told(self._brief) != told:
            self.update(self._brief)
        asked = self._requests.take()
        if self._caller.wordless:  # what is heard again brings an answer by itself
            asked = [instructions for instructions in asked if instructions is not None]
        elif self._owed and not asked:
            asked = [None]
        self._owed = False
        for instructions in asked:
            self.speak(instructions)
        self._on_event(Reconnected(cause, False, round((self._begun_at - self._lost_at) * 1000)))

    def _not_opened(self, session: ProviderSession, error: ProviderError) -> None:
        if session is not self._current or self._over:
            return
        if _closed_without_a_reason(error):
            self._lost(error)  # the service took the same a moment ago
        else:
            self._end(error)

    def _end(self, error: ProviderError) -> None:
        self._over = True
        self._on_event(Fault(error))

    def _told(self, brief: Brief) -> Brief:
        """Return the brief with what a later session must know besides."""
        note = "\n".join((*((_NOTE,) if self._count > 1 else ()), *self._errands.told()))
        if not note:
            return brief
        focus = f"{brief.focus}\n\n{note}" if brief.focus.strip() else ""
        return replace(brief, instructions=f"{brief.instructions}\n\n{note}", focus=focus)


def _closed_without_a_reason(error: ProviderError) -> bool:
    """Return whether a session was not set up for its connection was closed, and no refusal was named."""
    return error.code.isdigit() and int(error.code) >= _CLOSE_CODES


def _prefix(number: int) -> str:
    return f"{number}/"


def _renamed(event: ProviderEvent, number: int) -> ProviderEvent:
    """Tell the items of one session from those of another, which may have the same names."""
    if isinstance(event, AgentAudio | AgentAudioDone | AgentText):
        return replace(event, item_id=_prefix(number) + event.item_id)
    return event
