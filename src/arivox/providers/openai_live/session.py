"""A session with OpenAI Live: joins the socket to the protocol, the agent's speech and the turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import structlog

from arivox.audio.format import PTIME_MS, AudioFormat
from arivox.errors import ProtocolError, ProviderError, SettingsError
from arivox.logs import FROM_PROVIDER
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    Capabilities,
    Fault,
    Interrupted,
    OnProviderEvent,
    ResponseDone,
    ResponseStarted,
    SessionCounters,
    ToolCall,
)
from arivox.providers.openai.protocol import add_usage, headers
from arivox.providers.openai_live import protocol
from arivox.providers.openai_live.protocol import NESTED, PROVIDER
from arivox.providers.openai_live.speech import END_S, Edge, Speech
from arivox.providers.openai_live.tasks import Tasks
from arivox.providers.openai_live.turns import Turn, Turns
from arivox.providers.opening import Connection, expiry
from arivox.settings.settings import Settings

log = structlog.get_logger()

# The service may take 15 s to count up what was used; a call that is over does not wait that long.
_CLOSE_S: Final = 2.0
# Words of the caller over more than this of the agent's mean that the queue plays what the model has stopped.
_DEEP_MS: Final = 400.0
_ACTIVE_S: Final = 1.0  # a caller who goes on speaking is told of this often
_REACTION_S: Final = 0.5  # an utterance that ended sooner after a request was not the answer to it

_GREET: Final = "Greet the caller now, as your instructions say."
_GO_ON: Final = "Speak to the caller now: go on where the conversation stands, as your instructions say."
_DO: Final = "Do this now: "
_DO_ALL: Final = "Do this now: what you were just told."
_REMEMBER: Final = "From here on this is your task, in place of the task before it:\n"


class LiveSession:
    """One conversation with OpenAI Live. See ``providers.base.ProviderSession`` for the verbs.

    The service sends one unbroken sound. What is between two silences of some length is told as one answer of
    one item: ``live-1``, ``live-2`` and so on.
    """

    name = PROVIDER
    capabilities = Capabilities(
        turns=False,
        truncate=False,
        cancel=False,
        update="append",
        update_tools=True,
        resume=False,
        full_duplex=True,
    )

    def __init__(self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent) -> None:
        if audio.law is None:
            raise SettingsError("AI_SERVICE_PROVIDER", f"{PROVIDER} speaks G.711, and the call {audio.name}")
        self.counters = SessionCounters()
        self._audio = audio
        self._law = audio.law
        self._settings = settings
        self._on_event = on_event
        self._debug = settings.log_level == "debug"
        self._connection = Connection(
            PROVIDER, self.counters, self._message, self._gone, protocol.audio_append, debug=self._debug
        )
        self._expires_at = 0.0
        self._farewell: asyncio.Future[None] | None = None
        self._delegates = False
        self._begun = False  # the conversation, in a session before this one
        self._sent_ms = 0.0  # of the caller's sound
        self._speech = Speech(audio, self.counters)
        self._timer: asyncio.TimerHandle | None = None
        self._item = ""  # the utterance in progress
        self._utterances = 0
        self._turns = Turns()
        self._tasks = Tasks()
        self._active_at = float("-inf")  # when the caller was last told to be active
        self._asked_at: float | None = None  # when the agent was asked to speak, until it does

    def __repr__(self) -> str:
        connection = self._connection
        state = "ready" if connection.ready else "over" if connection.over else "connecting"
        return f"<LiveSession {state} {self._law}>"

    @property
    def busy(self) -> bool:
        """Return whether the agent speaks, or was asked to and has not begun."""
        return bool(self._item or self._asked_at is not None or self._tasks.wanted)

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open and start the session, trying again while time allows. Raises ProviderError."""
        settings = self._settings
        hello = protocol.session_start(
            settings.openai_live_model,
            self._law,
            settings.openai_voice_id,
            settings.openai_live_backend_model,
            brief,
        )
        self._delegates = bool(brief.tools)
        self._begun = brief.begun
        await self._connection.open(
            settings.openai_live_url,
            headers(settings.openai_api_key, "ga"),
            settings.provider_connect_timeout_s,
            hello=hello,
        )
        expires = expiry(self._expires_at)
        if expires is not None and self._connection.ready:
            self._on_event(expires)

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        """Send the caller's audio; before the session has started, keep the last five seconds of it."""
        self._sent_ms += self._audio.ms(len(data))
        self._connection.send_audio(data, keep=keep)

    def speak(self, instructions: str | None = None) -> None:
        """Ask the agent to speak now."""
        if self._connection.over:
            return
        if instructions is None:
            self._append([_GO_ON if self._utterances or self._begun else _GREET])
        else:
            *first, last = protocol.parts(instructions) or [_GO_ON]
            self._append([*first, last, _DO_ALL] if first else [_DO + last])
        self._asked_at = time.monotonic()

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Take the utterance for ended. There is nothing to tell the model: it hears the caller as we do."""
        if cancel:
            self._asked_at = None
        if self._speech.cut(time.monotonic(), drop=cancel):
            item, self._item = self._item, ""
            self._stop_timer()
            # Told as other services tell it: not from within the verb.
            asyncio.get_running_loop().call_soon(self._utterance_over, item, "cancelled")

    def update(self, brief: Brief) -> None:
        """Change what the backend model is told and may do, and add to what the agent was told."""
        if self._delegates:
            self._connection.tell(protocol.session_update(brief))
        elif brief.tools:
            log.warning("the AI is not told of its tools: its session was started without any")
        text = brief.focus.strip() or brief.instructions.strip()
        if text:
            self._append(protocol.parts(_REMEMBER + text))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give a tool's result; the backend model goes on when all results of its task are in."""
        self._connection.tell(protocol.function_call_output(call_id, output))
        if self._tasks.answered(call_id, go_on=answer):
            self._task_goes_on()

    def end_turn(self) -> None:
        """Do nothing: the service has no turns."""

    def renew(self, cause: str) -> None:
        """Do nothing: another session takes this one's place."""

    async def close(self) -> None:
        """End the session, wait a little for its account, and close the socket."""
        connection = self._connection
        if connection.over and self._farewell is not None:
            return
        self._stop_timer()
        was_ready = connection.ready
        connection.end()
        self._farewell = asyncio.get_running_loop().create_future()
        try:
            if was_ready:
                connection.send(protocol.session_close())
                await asyncio.wait([self._farewell], timeout=_CLOSE_S)
        finally:
            self._tell_turns(self._turns.flush())
            await connection.close()

    def _append(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._connection.tell(protocol.instructions_append(text))

    def _task_goes_on(self) -> None:
        self._connection.tell(protocol.response_create())
        self._asked_at = time.monotonic()

    # --- receiving ---

    def _message(self, data: bytes | memoryview) -> None:
        self.counters.messages_in += 1
        try:
            name, message = protocol.parse(data)
        except ProtocolError as error:
            log.warning("a message of the AI is ignored", origin=FROM_PROVIDER, error=str(error))
            return
        if self._debug:
            log.debug("received", origin=FROM_PROVIDER, message=bytes(data[:500]).decode(errors="replace"))
        if self._connection.opening:
            self._first(name, message)
        elif (handler := _HANDLERS.get(name)) and (not self._connection.over or name in _TO_THE_END):
            handler(self, message)

    def _first(self, name: str, message: Any) -> None:
        if name == "session.started":
            self._expires_at = message.session.expires_at or 0.0
            self._connection.accept()
        elif name == "error":
            error = message.error.as_provider_error()
            error.fatal = True  # whatever it was: there is no session
            self._connection.refuse(error)
        elif name == "session.closed":
            self._connection.refuse(_ended(message.reason))

    def _gone(self, error: ProviderError) -> None:
        if self._farewell is not None and not self._farewell.done():
            self._farewell.set_result(None)
        self._lose(error)

    def _lose(self, error: ProviderError) -> None:
        if self._connection.over:
            return
        self._connection.end()
        self._stop_timer()
        self._tell_turns(self._turns.flush())
        self._on_event(Fault(error))

    # --- the agent's voice ---

    def _on_audio(self, message: protocol.AudioDelta) -> None:
        self._play(self._speech.feed(message.delta, time.monotonic()))

    def _play(self, parts: list[bytes | Edge]) -> None:
        for part in parts:
            if isinstance(part, bytes):
                if self._item:
                    self.counters.audio_in_ms += self._audio.ms(len(part))
                    self._on_event(AgentAudio(self._item, part))
            elif part is Edge.BEGUN:
                self._utterances += 1
                self._item = f"live-{self._utterances}"
                self._asked_at = None
                self._timer = asyncio.get_running_loop().call_later(END_S, self._check_idle)
                self._on_event(ResponseStarted())
            else:
                self._stop_timer()
                item, self._item = self._item, ""
                # One that was asked for in the middle of it may have been given there.
                if self._asked_at is not None and self._asked_at < self._speech.voice_at - _REACTION_S:
                    self._asked_at = None
                if item:
                    self._utterance_over(item, "completed")

    def _on_appended(self, message: protocol.Appended) -> None:
        if self._asked_at is not None:
            self._speech.expect(time.monotonic())

    def _check_idle(self) -> None:
        """End the utterance when the server has sent nothing for a while: it need not send silence."""
        now = time.monotonic()
        self._play(self._speech.idle(now))
        if self._speech.speaking:
            wait = self._speech.received_at + END_S - now
            self._timer = asyncio.get_running_loop().call_later(wait, self._check_idle)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _utterance_over(self, item: str, status: Literal["completed", "cancelled"]) -> None:
        if self._connection.over:
            return
        self._on_event(AgentAudioDone(item))
        self._tell_turns(self._turns.flush("agent"))
        self._on_event(ResponseDone(status))

    # --- words ---

    def _on_agent_words(self, message: protocol.TranscriptDelta) -> None:
        item = self._item
        if not item:
            # The words of an utterance may come before its sound, and after it.
            lag = self._turns.continues("agent", message.start_ms)
            item = f"live-{max(1, self._utterances + (0 if lag else 1))}"
        self._tell_turns(self._turns.add("agent", message.delta, message.start_ms, message.end_ms, item))

    def _on_caller_words(self, message: protocol.TranscriptDelta) -> None:
        before = self._turns.begun["caller"]
        agent_ms = self._turns.begun_ms("agent")
        earlier = agent_ms is not None and message.end_ms is not None and message.end_ms <= agent_ms
        item = f"caller-{before + 1}"
        over = self._turns.add("caller", message.delta, message.start_ms, message.end_ms, item)
        # Before the sign that they speak on: what follows is not in these words.
        self._tell_turns(over)
        if not self._connection.over:
            now = time.monotonic()
            if not earlier and self._speech.ahead_ms(now) > _DEEP_MS:
                self._on_event(Interrupted())
            if self._turns.begun["caller"] > before or now - self._active_at >= _ACTIVE_S:
                self._active_at = now
                self._on_event(CallerActive(earlier))

    def _tell_turns(self, turns: Iterable[Turn]) -> None:
        for turn in turns:
            if turn.side == "agent":
                self._on_event(AgentText(turn.item_id, turn.text))
            else:
                self._on_event(CallerText(turn.item_id, turn.text, self._sent_since(turn.end_ms)))

    def _sent_since(self, place_ms: int | None) -> float:
        """Return how much of the caller's sound the service was sent after a place on its timeline."""
        if place_ms is None:
            return 0.0
        dropped_ms = self.counters.uplink_dropped_frames * PTIME_MS
        return max(0.0, self._sent_ms - dropped_ms - place_ms)

    # --- the backend model ---

    def _on_task_begun(self, message: protocol.Delegated) -> None:
        self._tasks.begun(message.delegation_id)

    def _on_task_item(self, message: protocol.Delegated) -> None:
        item = message.event.item
        if item.type != "function_call" or not item.call_id:
            return
        if self._tasks.called(message.delegation_id, item.call_id):
            arguments = item.arguments if isinstance(item.arguments, str) else ""
            self._on_event(ToolCall(item.call_id, item.name or "", arguments or "{}"))

    def _on_task_ended(self, message: protocol.Delegated) -> None:
        response = message.event.response
        if response is not None and response.usage:
            add_usage(self.counters.usage, response.usage, "delegated.")
        if self._tasks.ended(message.delegation_id):
            self._task_goes_on()

    def _on_task_failed(self, message: protocol.Delegated) -> None:
        self._tasks.failed(message.delegation_id)
        error = message.event.as_provider_error()
        error.fatal = False  # the voice goes on
        self._on_event(Fault(error))

    # --- the session ---

    def _on_usage(self, message: protocol.UsageUpdated | protocol.SessionClosed) -> None:
        if message.usage is not None and message.usage.seconds is not None:
            self.counters.usage["seconds"] = round(message.usage.seconds)

    def _on_session_closed(self, message: protocol.SessionClosed) -> None:
        self._on_usage(message)
        if self._farewell is not None and not self._farewell.done():
            self._farewell.set_result(None)
        self._lose(_ended(message.reason))

    def _on_error(self, message: protocol.ErrorMessage) -> None:
        error = message.error.as_provider_error()
        if error.fatal:
            self._lose(error)
        else:
            self._on_event(Fault(error))


_REASONS: Final = {
    "expired": "the session has lasted as long as it may",
    "content": "the session was ended for what was said in it",
    "connection_lost": "the service lost the connection",
}


def _ended(reason: str | None) -> ProviderError:
    text = _REASONS.get(reason or "", f"the session was ended ({reason or 'no reason given'})")
    return ProviderError(PROVIDER, text, code=reason or "closed", lost=reason == "connection_lost")


_HANDLERS: Final[dict[str, Any]] = {
    "error": LiveSession._on_error,
    "session.closed": LiveSession._on_session_closed,
    "session.usage.updated": LiveSession._on_usage,
    "session.instructions.appended": LiveSession._on_appended,
    "session.output_audio.delta": LiveSession._on_audio,
    "session.output_transcript.delta": LiveSession._on_agent_words,
    "session.input_transcript.delta": LiveSession._on_caller_words,
    NESTED + "error": LiveSession._on_task_failed,
    NESTED + "response.created": LiveSession._on_task_begun,
    NESTED + "response.output_item.done": LiveSession._on_task_item,
    NESTED + "response.completed": LiveSession._on_task_ended,
    NESTED + "response.failed": LiveSession._on_task_failed,
    NESTED + "response.incomplete": LiveSession._on_task_failed,
}
# What is heard even after the session was closed or lost.
_TO_THE_END: Final = frozenset(
    {
        "session.closed",
        "session.usage.updated",
        "session.output_transcript.delta",
        "session.input_transcript.delta",
    }
)
