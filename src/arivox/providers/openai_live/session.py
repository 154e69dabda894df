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
)
from arivox.providers.openai.protocol import headers
from arivox.providers.openai_live import phrases, protocol
from arivox.providers.openai_live.commands import Commands, Result, Told, WentOn
from arivox.providers.openai_live.delegations import Delegations
from arivox.providers.openai_live.errors import PROVIDER, ErrorMessage, OptionalPart, ended
from arivox.providers.openai_live.pulse import LOOK_S, MUTE_S, Pulse
from arivox.providers.openai_live.speech import END_S, Edge, Speech
from arivox.providers.openai_live.start import Start
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
_UNHEARD_S: Final = 2.0  # words of the agent without a sound for so long are not speech
_REPLY_S: Final = 2.5  # the agent begins to speak of a task that is done within this time, or was not told


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
        self._delegations = Delegations(
            self.counters,
            on_event,
            go_on=self._task_goes_on,
            speak=self._reply_is_due,
            slow=self._task_is_slow,
            give_up=self._task_given_up,
        )
        self._active_at = float("-inf")  # when the caller was last told to be active
        self._asked_at: float | None = None  # when the agent was asked to speak, until it does
        self._commands = Commands()
        self._spoke_at = float("-inf")  # when the latest utterance began
        self._caller_waits = False  # they spoke, and no utterance has begun since
        self._broken: ProviderError | None = None  # the service failed, in the middle of an utterance
        self._unheard: list[Turn] = []  # words of the agent whose sound has not come
        self._mute = False  # its words come without a sound, as was told
        self._unsounded = False  # they did since the last utterance
        self._reply_due = False  # the agent has something to speak of, and begins by itself
        self._voice_timer: asyncio.TimerHandle | None = None  # a voice is awaited
        self._refused_part: OptionalPart | None = None
        self._pulse = Pulse()
        self._pulse_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        connection = self._connection
        state = "ready" if connection.ready else "over" if connection.over else "connecting"
        return f"<LiveSession {state} {self._law}>"

    @property
    def busy(self) -> bool:
        """Return whether the agent speaks, was asked to and has not begun, or has a task at work."""
        return bool(self._item or self._asked_at is not None or self._delegations.tasks.busy)

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open and start the session, trying again while time allows. Raises ProviderError."""
        self._delegates = bool(brief.tools)
        self._begun = brief.begun
        await self._open(brief)
        expires = expiry(self._expires_at)
        if self._connection.ready:
            self._feel_pulse()
            if expires is not None:
                self._on_event(expires)

    async def _open(self, brief: Brief) -> None:
        """Start the session, if need be without what it can do without. Raises ProviderError."""
        settings = self._settings
        left_s = settings.provider_connect_timeout_s
        give_up = time.monotonic() + left_s
        key = headers(settings.openai_api_key, "ga")
        start = Start(settings, self._law, brief)
        while True:
            self._refused_part = None
            try:
                await self._connection.open(
                    settings.openai_live_url, key, left_s, hello=start.message(), again=brief.begun
                )
            except ProviderError as error:
                left_s = give_up - time.monotonic()
                without = start.leave_out(self._refused_part)
                if not without or left_s <= 0:
                    raise
                self.counters.left_out += 1
                log.warning(
                    "the AI refuses a part of the session; it is started without",
                    without=without,
                    error=str(error),
                )
                error.fatal = False
                self._on_event(Fault(error))
            else:
                return

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        """Send the caller's audio; before the session has started, keep the last five seconds of it."""
        self._sent_ms += self._audio.ms(len(data))
        self._connection.send_audio(data, keep=keep)

    def speak(self, instructions: str | None = None) -> None:
        """Ask the agent to speak now."""
        if self._connection.over:
            return
        if not self._words_open:
            self._stop_awaiting_voice()  # who asks will wait
        if instructions is None:
            self._ask(phrases.GO_ON if self._utterances or self._begun else phrases.GREET)
        else:
            *first, last = protocol.parts(instructions) or [phrases.GO_ON]
            self._append([*first, last] if first else [])
            self._ask(phrases.DO_ALL if first else phrases.DO + last)

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Take the utterance for ended. There is nothing to tell the model: it hears the caller as we do."""
        if cancel:
            self._asked_at = None
            self._stop_awaiting_voice()
            if not self._item:
                self._take_unheard()  # nobody waits for their sound any more
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
            self._append(protocol.parts(phrases.REMEMBER + text))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give a tool's result; the backend model goes on when all results of its task are in.

        One that no task waits for is told to the agent.
        """
        if self._connection.over:
            return
        tasks = self._delegations.tasks
        if not tasks.waits_for(call_id):
            self._tell_result(output, answer=answer)
            return
        event_id = self._commands.sent(Result(output, answer))
        self._connection.tell(protocol.function_call_output(call_id, output, event_id))
        if tasks.answered(call_id, go_on=answer):
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
        self._stop_timers()
        was_ready = connection.ready
        connection.end()
        self._farewell = asyncio.get_running_loop().create_future()
        try:
            if was_ready:
                connection.send(protocol.session_close())
                await asyncio.wait([self._farewell], timeout=_CLOSE_S)
        finally:
            self._tell_last_words()
            await connection.close()

    def _append(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._connection.tell(protocol.instructions_append(text, self._commands.sent(Told(text))))

    def _ask(self, text: str, delegation_id: str | None = None) -> None:
        """Add instructions that the agent is to carry out now."""
        event_id = self._commands.sent(Told(text, asks=True))
        self._connection.tell(protocol.instructions_append(text, event_id, delegation_id))
        self._asked_at = time.monotonic()
        self._mute = False

    def _tell_result(self, output: str, *, answer: bool) -> None:
        """Tell the agent in words what a tool has returned, and have it speak of that."""
        self._append(protocol.parts(phrases.RETURNED + output))
        if answer:
            self._ask(phrases.GO_ON)

    def _task_goes_on(self) -> None:
        self._connection.tell(protocol.response_create(self._commands.sent(WentOn())))
        self._asked_at = time.monotonic()

    # --- receiving ---

    def _message(self, data: bytes | memoryview) -> None:
        self._pulse.heard(time.monotonic())
        try:
            name, message = protocol.parse(data)
            self.counters.messages_in += name not in _NO_SIGN
        except ProtocolError as error:
            self.counters.messages_in += 1
            log.warning("a message of the AI is ignored", origin=FROM_PROVIDER, error=str(error))
            return
        if self._debug:
            log.debug("received", origin=FROM_PROVIDER, message=bytes(data[:500]).decode(errors="replace"))
        if self._connection.opening:
            self._first(name, message)
        elif not self._connection.over or name in _TO_THE_END:
            handler = _HANDLERS.get(name)
            if handler is not None:
                handler(self, message)
            elif isinstance(message, protocol.Delegated):
                self._delegations.hear(message, self._spoke_at)

    def _first(self, name: str, message: Any) -> None:
        if name == "session.started":
            self._expires_at = message.session.expires_at or 0.0
            self._connection.accept()
        elif name == "error":
            self._refused_part = message.error.optional_part
            self._connection.refuse(message.error.as_refusal())
        elif name == "session.closed":
            error = ended(message.reason)
            error.lost = False
            if error.rejected:
                self._refused_part = "history"  # what was said is all that changes from call to call
            else:
                error.code = "connect"
            self._connection.refuse(error)

    def _gone(self, error: ProviderError) -> None:
        if self._farewell is not None and not self._farewell.done():
            self._farewell.set_result(None)
        self._lose(error)

    def _lose(self, error: ProviderError) -> None:
        if self._connection.over:
            return
        self._connection.end()
        self._stop_timers()
        self._tell_last_words()
        self._on_event(Fault(error))

    def _feel_pulse(self) -> None:
        if self._pulse.mute(time.monotonic()):
            text = f"nothing has come for {MUTE_S:g} s"
            self._lose(ProviderError(PROVIDER, text, code="mute", lost=True))
        else:
            self._pulse_timer = asyncio.get_running_loop().call_later(LOOK_S, self._feel_pulse)

    # --- the agent's voice ---

    def _on_audio(self, message: protocol.AudioDelta) -> None:
        voice_at = self._speech.voice_at
        self._play(self._speech.feed(message.delta, time.monotonic()))
        self.counters.messages_in += self._speech.voice_at > voice_at

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
                self._spoke_at = time.monotonic()
                self._caller_waits = self._mute = self._unsounded = False
                self._broken = None
                self._stop_awaiting_voice()
                self._timer = asyncio.get_running_loop().call_later(END_S, self._check_idle)
                self._on_event(ResponseStarted())
                unheard, self._unheard = self._unheard, []
                self._tell_turns(unheard)
            else:
                self._stop_timer()
                item, self._item = self._item, ""
                # One that was asked for in the middle of it may have been given there.
                if self._asked_at is not None and self._asked_at < self._speech.voice_at - _REACTION_S:
                    self._asked_at = None
                if item:
                    self._utterance_over(item, "completed")
                if self._reply_due and self._asked_at is not None:
                    self._await_voice(_REPLY_S)

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

    def _stop_timers(self) -> None:
        self._stop_timer()
        self._stop_awaiting_voice()
        self._delegations.stop()
        if self._pulse_timer is not None:
            self._pulse_timer.cancel()

    def _utterance_over(self, item: str, status: Literal["completed", "cancelled"]) -> None:
        if self._connection.over:
            return
        self._on_event(AgentAudioDone(item))
        self._tell_turns(self._turns.flush("agent"))
        broken, self._broken = self._broken, None
        if broken is not None and status == "completed":
            self._on_event(ResponseDone("failed", broken))
        else:
            self._on_event(ResponseDone(status))

    # --- a voice that does not come ---

    def _await_voice(self, seconds: float) -> None:
        """Expect an utterance to begin within ``seconds``, unless one is in progress or expected already."""
        if self._voice_timer is None and not self._item:
            self._voice_timer = asyncio.get_running_loop().call_later(seconds, self._no_voice)

    def _stop_awaiting_voice(self) -> None:
        timer, self._voice_timer = self._voice_timer, None
        self._reply_due = False
        if timer is not None:
            timer.cancel()

    def _no_voice(self) -> None:
        """Tell of an answer that nobody has heard."""
        self._stop_awaiting_voice()
        unheard = self._take_unheard()
        if unheard:
            self._mute = self._unsounded = True
            log.warning(
                "the AI answered in words without a sound", text=" ".join(turn.text for turn in unheard)
            )
        self._asked_at = None
        self._on_event(ResponseDone("completed"))

    @property
    def _words_open(self) -> bool:
        """Return whether words of the agent have come whose sound has not."""
        return bool(self._unheard) or (not self._item and self._turns.begun_ms("agent") is not None)

    def _take_unheard(self) -> list[Turn]:
        """Return the words of the agent whose sound has not come, and forget them."""
        self._tell_turns(self._turns.flush("agent"))
        unheard, self._unheard = self._unheard, []
        return unheard

    def _no_answer(self, error: ProviderError) -> None:
        """Tell that what the agent was asked for, or the caller awaits, has failed."""
        self._stop_awaiting_voice()
        self._asked_at = None
        self._caller_waits = False
        if self._item:
            self._broken = error  # told at its end: it may be heard to there
        else:
            self._on_event(ResponseDone("failed", error))

    # --- words ---

    def _on_agent_words(self, message: protocol.TranscriptDelta) -> None:
        item = self._item
        if not item:
            if self._mute:
                return
            # The words of an utterance may come before its sound, and after it.
            lag = not self._unsounded and self._turns.continues("agent", message.start_ms)
            item = f"live-{max(1, self._utterances + (0 if lag else 1))}"
            if not lag and message.delta.strip() and not self._connection.over:
                self._await_voice(_UNHEARD_S)
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
            if not earlier:
                self._caller_waits = not self._item
                self._mute = False
                if self._voice_timer is not None and self._reply_due:
                    self._stop_awaiting_voice()
                    self._reply_is_due()  # they speak first
            if not earlier and self._speech.ahead_ms(now) > _DEEP_MS:
                self._on_event(Interrupted())
            if self._turns.begun["caller"] > before or now - self._active_at >= _ACTIVE_S:
                self._active_at = now
                self._on_event(CallerActive(earlier))

    def _tell_turns(self, turns: Iterable[Turn]) -> None:
        for turn in turns:
            if turn.side == "agent":
                if turn.item_id == f"live-{self._utterances + 1}" and not self._connection.over:
                    self._unheard.append(turn)
                else:
                    self._on_event(AgentText(turn.item_id, turn.text))
            else:
                self._on_event(CallerText(turn.item_id, turn.text, self._sent_since(turn.end_ms)))

    def _tell_last_words(self) -> None:
        unheard, self._unheard = self._unheard, []
        self._tell_turns([*unheard, *self._turns.flush()])

    def _sent_since(self, place_ms: int | None) -> float:
        """Return how much of the caller's sound the service was sent after a place on its timeline."""
        if place_ms is None:
            return 0.0
        dropped_ms = self.counters.uplink_dropped_frames * PTIME_MS
        return max(0.0, self._sent_ms - dropped_ms - place_ms)

    # --- the backend model ---

    def _on_delegation(self, message: protocol.DelegationCreated) -> None:
        if message.delegation.target == "client":
            # As where a session has no tools: nobody would ever answer.
            self._ask(phrases.ALONE, message.delegation.id)
        else:
            self._delegations.handed_over(message.delegation.id)

    def _reply_is_due(self) -> None:
        """Hear that the agent has something to speak of, and begins by itself."""
        self._asked_at = time.monotonic()
        self._reply_due = True
        self._await_voice(_REPLY_S)

    def _task_is_slow(self, error: ProviderError) -> None:
        if not self._item:  # else the caller hears something
            self._no_answer(error)

    def _task_given_up(self, error: ProviderError) -> None:
        self._append([phrases.TASK_FAILED])
        self._no_answer(error)

    # --- the session ---

    def _on_usage(self, message: protocol.UsageUpdated | protocol.SessionClosed) -> None:
        if message.usage is not None and message.usage.seconds is not None:
            self.counters.usage["seconds"] = round(message.usage.seconds)

    def _on_session_closed(self, message: protocol.SessionClosed) -> None:
        self._on_usage(message)
        if self._farewell is not None and not self._farewell.done():
            self._farewell.set_result(None)
        self._lose(ended(message.reason))

    def _on_error(self, message: ErrorMessage) -> None:
        problem = message.error
        error = problem.as_provider_error()
        command = self._commands.refused(message.refused)
        if command is not None and not error.lost:
            error.fatal = False
            self._on_refused(command, error, too_long=problem.too_long)
        elif error.fatal:
            self._lose(error)
        elif problem.failure and not self._item and (self._asked_at is not None or self._caller_waits):
            self._no_answer(error)
        else:
            self._on_event(Fault(error))

    def _on_refused(self, command: Told | Result | WentOn, error: ProviderError, *, too_long: bool) -> None:
        """Do in another way what the service has refused, or tell that it is not done."""
        match command:
            case Told(text, asks) if too_long and len(halves := protocol.halves(text)) > 1:
                *first, last = halves
                self._append(first)
                if asks:
                    self._ask(last)
                else:
                    self._append([last])
            case Told(_, asks=True) | WentOn():
                self._no_answer(error)
            case Result(output, answer):
                self._on_event(Fault(error))
                self._tell_result(output, answer=answer)
            case _:
                self._on_event(Fault(error))


_HANDLERS: Final[dict[str, Any]] = {
    "error": LiveSession._on_error,
    "session.closed": LiveSession._on_session_closed,
    "session.usage.updated": LiveSession._on_usage,
    "session.instructions.appended": LiveSession._on_appended,
    "session.output_audio.delta": LiveSession._on_audio,
    "session.output_transcript.delta": LiveSession._on_agent_words,
    "session.input_transcript.delta": LiveSession._on_caller_words,
    "session.delegation.created": LiveSession._on_delegation,
}
# What comes whether the model does anything or not. Of the sound, a voice counts.
_NO_SIGN: Final = frozenset(
    {
        "session.instructions.appended",
        "session.output_audio.delta",
        "session.updated",
        "session.usage.updated",
    }
)
# What is heard even after the session was closed or lost.
_TO_THE_END: Final = frozenset(
    {
        "session.closed",
        "session.usage.updated",
        "session.output_transcript.delta",
        "session.input_transcript.delta",
    }
)
