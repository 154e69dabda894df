"""A session with Gemini Live: joins the sockets, one after another, to the protocol.

A connection lasts ten minutes at most; the session goes on over the next one. The service says ``goAway``
before it aborts one: then the next is opened beside it and taken over at a quiet moment, with the latest
handle of the session, so that nobody notices.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, cast

import structlog

from arivox.audio.format import AudioFormat
from arivox.audio.g711 import Law
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    Brief,
    Capabilities,
    Fault,
    Interrupted,
    OnProviderEvent,
    ProviderEvent,
    Reconnected,
    SessionCounters,
    SpeechStarted,
    SpeechStopped,
)
from arivox.providers.gemini import protocol
from arivox.providers.gemini.caller import CallerAudio
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.endpoint import Endpoint, backend_of, model_name
from arivox.providers.gemini.models import traits_of
from arivox.providers.gemini.protocol import PROVIDER, RATE_OUT, Closed, Message, ServerContent, SetupOptions
from arivox.providers.gemini.turn import Turns
from arivox.providers.opening import open_in_time
from arivox.providers.transcoder import Transcoder
from arivox.settings import Settings

log = structlog.get_logger()

_LOOK_EVERY_S: Final = 0.1  # for a quiet moment
_AGAIN_S: Final = 1.0
_HANDLE_GONE: Final = frozenset({"session_expired", "session_not_found"})
_GO_EARLY_S: Final = 3.0  # before the end that goAway announced, quiet or not

_SPEAK: Final = (
    "(The caller is on the line and waits for you. Speak now, as your instructions for this state say.)"
)
_NEW: Final = "(New instructions, not from the caller. They replace the earlier ones.)"
_GO_ON: Final = (
    "(The connection was lost for a moment, and the caller may not have heard your last answer. "
    "Go on where you were, without speaking of the connection.)"
)


def setup_options(settings: Settings) -> SetupOptions:
    """Return the set-up of a session."""
    return SetupOptions(
        model=model_name(settings),
        backend=backend_of(settings),
        voice=settings.gemini_voice_id,
        language=settings.gemini_language,
        thinking_level=settings.gemini_thinking_level,
        start_sensitivity=settings.gemini_vad_start_sensitivity,
        end_sensitivity=settings.gemini_vad_end_sensitivity,
        prefix_padding_ms=settings.gemini_vad_prefix_padding_ms,
        silence_duration_ms=settings.gemini_vad_silence_duration_ms,
    )


class GeminiSession:
    """One conversation with Gemini Live. See ``providers.base.ProviderSession`` for the verbs."""

    name = PROVIDER

    def __init__(self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent) -> None:
        self.counters = SessionCounters()
        self._audio = audio
        self._law = cast(Law, audio.law)
        self._options = setup_options(settings)
        self._traits = traits_of(settings.gemini_model_name)
        update = self._traits.update(self._options.backend)
        self.capabilities = Capabilities(
            turns=self._options.backend == "vertex",
            truncate=False,
            cancel=False,
            update=update,
            update_tools=update == "context",
            resume=True,
            full_duplex=False,
        )
        rate = int(settings.gemini_target_input_sample_rate)
        self._transcoder = Transcoder(audio, up=rate, down=RATE_OUT)
        self._head = protocol.audio_head(rate)
        self._endpoint = Endpoint(settings)
        self._timeout_s = settings.provider_connect_timeout_s
        self._on_event = on_event
        self._debug = settings.log_level == "debug"
        self._turns = Turns(settings.gemini_history_max_turns, idle_status=self._traits.idle_status)
        self._caller = CallerAudio(cast(Law, audio.law))
        self._brief = Brief("")
        self._connection: Connection | None = None  # the one in use
        self._renewing: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None  # for a quiet moment
        self._leave_by = 0.0  # another connection must be in use then; 0: no need
        self._lost_at = 0.0
        self._handle = ""
        self._closed = False
        self._speaking = False  # the caller, as far as the service tells
        self._asked: deque[str] = deque()  # answers to ask for once the present one is done
        self._held: dict[str, bytes] = {}  # results after which the agent shall not speak
        self._answer_owed = False  # an answer was lost with a connection
        self._note_due = False  # new instructions, which go with the result of a tool
        self._system_due = False  # or as a turn of the system, once this turn is over

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ready" if self._ready else "connecting"
        return f"<GeminiSession {state} {self._options.model}>"

    @property
    def busy(self) -> bool:
        """Return whether an answer is in progress, or asked for and not begun."""
        turns = self._turns
        return bool(turns.generating or turns.asked or turns.open_tools or self._asked or self._answer_owed)

    @property
    def _ready(self) -> bool:
        return self._connection is not None and self._connection.alive

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open and set up the session, trying again while time allows. Raises ProviderError."""
        self._brief = brief
        self._turns.history.extend(brief.history)
        connection = await self._open()
        if self._closed:
            await connection.close()
            return
        self._use(connection)

    def send_audio(self, data: bytes) -> None:
        """Send the caller's audio; without a connection, keep what is said for the next one."""
        if self._closed:
            self.counters.uplink_dropped_frames += 1
            return
        self._caller.add(data)
        if self._connection is not None and self._connection.alive:
            self.counters.audio_out_frames += 1
            self._connection.send_audio(protocol.audio(self._head, self._transcoder.to_provider(data)))

    def speak(self, instructions: str | None = None) -> None:
        """Ask for an answer now, or after the one in progress."""
        if not self._closed:
            self._asked.append(instructions or _SPEAK)
            self._ask_next()

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Drop what still comes of the answer in progress.

        The service keeps in its memory what it has sent, heard or not: it cannot be told.
        """
        self._turns.cut(cancel=cancel)
        self._transcoder.restart()
        if cancel:
            return
        # The caller's turn brings an answer of its own; another would talk over them.
        self._asked = deque(asked for asked in self._asked if asked != _SPEAK)
        held, self._held = self._held, {}
        for message in held.values():
            self._send(message)

    def update(self, brief: Brief) -> None:
        """Change the instructions, and the tools where the service can."""
        self._brief = brief
        way = self.capabilities.update
        if way == "context":
            self._send(protocol.context_update(brief, self._traits))
        elif self._turns.open_tools:
            # Any other message would break the answer off that waits for the tool.
            self._note_due = True
            self._system_due = way == "system turn"
        elif way == "system turn":
            self._send(protocol.note(brief.instructions, "system"))
        elif self._traits.notes == "content":
            self._send(protocol.note(_note(brief)))
        else:
            self._send(protocol.text(_note(brief)))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give a tool's result; the agent speaks on when it has all of them."""
        name = self._turns.tool_answered(call_id)
        if not name:
            log.debug("nobody waits for the result of a tool", call_id=call_id)
            return
        added = _note(self._brief) if self._note_due else ""
        self._note_due = False
        message = protocol.tool_response(call_id, name, output, added)
        if not answer:
            # The agent waits for the result and is silent: so it stays, unless the caller speaks on.
            self._held[call_id] = message
            return
        if not self._turns.open_tools:
            self._turns.ask()
        self._send(message)

    async def close(self) -> None:
        """Close the socket, and give up opening another."""
        self._closed = True
        self._stop_looking()
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait([renewing])
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        self.counters.uplink_dropped_frames += self._caller.overflowed
        self._caller.overflowed = 0

    # --- connections ---

    async def _open(self) -> Connection:
        """Return a connection that is set up. Raises ProviderError."""
        opened: list[Connection] = []

        async def attempt() -> None:
            url, headers = await self._endpoint.open()
            history = () if self._handle else tuple(self._turns.history)
            seeded = bool(history) and self._traits.seeded_history
            connection = Connection(self.counters, self._take, self._on_closed, debug=self._debug)
            setup = protocol.setup(self._options, self._traits, self._brief, self._handle, seeded=seeded)
            try:
                await connection.open(url, headers, setup, self._timeout_s)
            except ProviderError as error:
                if self._handle and error.code in _HANDLE_GONE:
                    self._handle = ""  # the next attempt begins a new session
                    error.code = "connect"
                raise
            if history:
                connection.send(protocol.history(history, self._traits))
            opened.append(connection)

        await open_in_time(PROVIDER, self._timeout_s, attempt)
        return opened[0]

    def _use(self, connection: Connection) -> None:
        """Use ``connection`` from now on. It is sent first what the caller said and no state holds."""
        self._connection = connection
        if not connection.alive:
            self._lost(protocol.closed(1006, ""))  # right after it was set up
            return
        frames = self._caller.replay()
        if frames:
            self.counters.audio_out_frames += len(frames)
            connection.send(protocol.audio(self._head, self._transcoder.to_provider(b"".join(frames))))
        connection.begin()
        self._ask_next()

    def _on_closed(self, connection: Connection, meaning: Closed) -> None:
        if connection is self._connection and not self._closed:
            self._lost(meaning)

    def _lost(self, meaning: Closed) -> None:
        self._lost_at = time.monotonic()
        if meaning.remedy == "give up":
            self._on_event(Fault(meaning.error))
            return
        if meaning.remedy == "new":
            self._handle = ""
        self._give_up_turn()
        log.warning("the AI's connection was lost; opening another", error=str(meaning.error))
        self._renew(meaning.error.message)

    def _give_up_turn(self) -> None:
        """Take note that whatever is in progress will not go on."""
        owed, events = self._turns.lost()
        self._answer_owed = self._answer_owed or owed
        self._held.clear()
        self._note_due = False
        self._emit(events)

    def _renew(self, cause: str) -> None:
        if self._renewing is None and not self._closed:
            self._renewing = asyncio.get_running_loop().create_task(self._renewed(cause))

    async def _renewed(self, cause: str) -> None:
        """Open another connection and go on over it."""
        try:
            connection = await self._open()
        except ProviderError as error:
            self._renewing = None
            if self._ready:
                log.warning("no other connection of the AI yet; trying again", error=str(error))
                self._look(_AGAIN_S)
            else:
                self._on_event(Fault(error))
            return
        self._renewing = None
        planned = self._ready
        if planned and not self._may_leave():
            # Somebody began to speak meanwhile, and the new connection would know nothing of it.
            await connection.close()
            self._look()
            return
        if planned and not self._turns.quiet:
            self._give_up_turn()
        gap_ms = 0 if planned else round((time.monotonic() - self._lost_at) * 1000)
        self.counters.reconnects += 1
        self._leave_by = 0.0
        self._on_event(Reconnected(cause, bool(self._handle), gap_ms))
        if self._answer_owed:
            self._answer_owed = False
            if not self._caller.voice:  # else their words are heard again, and answered
                self._asked.appendleft(_GO_ON)
        old = self._connection
        self._use(connection)
        if old is not None:
            await old.close()

    def _look(self, delay: float = 0.0) -> None:
        """Leave the connection at the next quiet moment, ``delay`` seconds from now at the earliest."""
        if self._closed or self._leave_by == 0.0 or self._renewing is not None:
            return
        self._stop_looking()
        if not delay and self._may_leave():
            self._renew("goAway")
        else:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(delay or _LOOK_EVERY_S, self._look)

    def _stop_looking(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _may_leave(self) -> bool:
        if time.monotonic() >= self._leave_by:
            return True
        return self._turns.quiet and not self._asked and not self._caller.voice

    # --- sending ---

    def _send(self, message: bytes) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _ask_next(self) -> None:
        if self._asked and self._ready and self._turns.may_ask:
            words = self._asked.popleft()
            breaks_off = self._turns.late and self._traits.notes == "content"
            self._turns.ask()
            self._send(protocol.request(words) if breaks_off else protocol.text(words))

    # --- receiving ---

    def _take(self, connection: Connection, message: Message) -> None:
        if connection is not self._connection or self._closed:
            return
        # Several of these may come at once.
        if message.voice_activity is not None:
            self._activity(message.voice_activity.type or "")
        if message.server_content is not None:
            self._content(message.server_content)
        if message.tool_call is not None:
            self._emit(self._turns.called(message.tool_call))
        if message.tool_call_cancellation is not None:
            for call_id in message.tool_call_cancellation.ids or ():
                self._held.pop(call_id, None)
            self._emit(self._turns.calls_cancelled(message.tool_call_cancellation))
        if message.session_resumption_update is not None:
            update = message.session_resumption_update
            if update.resumable and update.new_handle:
                self._handle = update.new_handle
                self._caller.saved()
        if message.usage_metadata is not None:
            protocol.add_usage(self.counters.usage, message.usage_metadata)
        if message.go_away is not None:
            self._leave_by = time.monotonic() + max(message.go_away.seconds - _GO_EARLY_S, 0.0)
            log.info("the AI's connection will end; another is made", seconds=message.go_away.seconds)
            self._look()
        if self._system_due and self._turns.quiet:
            self._system_due = False
            self._send(protocol.note(self._brief.instructions, "system"))
        self._ask_next()

    def _content(self, content: ServerContent) -> None:
        self._emit(self._turns.transcripts(content))
        turn = content.model_turn
        for part in (turn.parts or ()) if turn is not None else ():
            if part.inline_data is not None and part.inline_data.data:
                self._sound(part.inline_data.data)
        for event in self._turns.ends(content):
            # A caller whose speech was told of has been noticed.
            if not (self._speaking and isinstance(event, Interrupted)):
                self._on_event(event)

    def _sound(self, data: bytes) -> None:
        turns = self._turns
        if turns.late:
            self.counters.late_audio_ms += len(data) * 1000 / (2 * RATE_OUT)
            return
        self._emit(turns.began())
        item_id, begun = turns.audio_item()
        if begun:
            self._transcoder.restart()
        heard = self._transcoder.to_link(data)
        self.counters.audio_in_ms += self._audio.ms(len(heard))
        self._on_event(AgentAudio(item_id, heard))

    def _activity(self, kind: str) -> None:
        if kind.endswith("ACTIVITY_START"):
            self._speaking = True
            self._on_event(SpeechStarted())
        elif kind.endswith("ACTIVITY_END"):
            self._speaking = False
            self._on_event(SpeechStopped())

    def _emit(self, events: Iterable[ProviderEvent]) -> None:
        for event in events:
            self._on_event(event)


def _note(brief: Brief) -> str:
    return f"{_NEW}\n{brief.focus or brief.instructions}"
