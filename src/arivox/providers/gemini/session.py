"""A session with Gemini Live: joins its connections, one after another, to the protocol and the turns.

The service keeps the conversation and gives handles to take it up; ``rotation`` decides when. What no handle
holds yet the next connection is told here.
"""

from __future__ import annotations

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
    AgentText,
    Brief,
    CallerText,
    Capabilities,
    Fault,
    Interrupted,
    OnProviderEvent,
    ProviderEvent,
    Reconnected,
    ResponseDone,
    ResponseStarted,
    SessionCounters,
    SpeechStarted,
    SpeechStopped,
    Utterance,
)
from arivox.providers.gemini import protocol
from arivox.providers.gemini.caller import CallerAudio
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.endpoint import Endpoint, backend_of, model_name
from arivox.providers.gemini.models import traits_of
from arivox.providers.gemini.protocol import PROVIDER, RATE_OUT, Closed, Message, ServerContent, SetupOptions
from arivox.providers.gemini.rotation import Rotation
from arivox.providers.gemini.turn import Turns
from arivox.providers.gemini.unsaved import Unsaved
from arivox.providers.opening import open_in_time
from arivox.providers.transcoder import Transcoder
from arivox.settings.settings import Settings

log = structlog.get_logger()

_HANDLE_GONE: Final = frozenset({"session_expired", "session_not_found"})
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
        self._rotation = Rotation(self, self._open)
        self._request = ""  # what the answer in progress was asked for with
        self._unsaved = Unsaved()
        self._handle = ""
        self._speaking = False  # the caller, as far as the service tells
        self._asked: deque[str] = deque()  # answers to ask for once the present one is done
        self._held: dict[str, bytes] = {}  # results after which the agent shall not speak
        self._answer_owed = False  # an answer was lost with a connection
        self._note_due = False  # new instructions, which go with the result of a tool
        self._noted: deque[str] = deque(maxlen=16)  # the latest results they went with
        self._update_due = False  # or once this turn is over

    def __repr__(self) -> str:
        rotation = self._rotation
        state = "closed" if rotation.closed else "ready" if rotation.alive else "connecting"
        return f"<GeminiSession {state} {self._options.model}>"

    @property
    def busy(self) -> bool:
        """Return whether an answer is in progress, or asked for and not begun."""
        turns = self._turns
        return bool(turns.generating or turns.asked or turns.open_tools or self._asked or self._answer_owed)

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open and set up the session, trying again while time allows. Raises ProviderError."""
        self._brief = brief
        self._turns.history.extend(brief.history)
        connection = await self._open()
        if self._rotation.closed:
            await connection.close()
        else:
            self._rotation.use(connection)

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        """Send the caller's audio; without a connection, keep what is said for the next one.

        Words are sent again from here, so nobody asks to ``keep`` any.
        """
        if self._rotation.closed:
            self.counters.uplink_dropped_frames += 1
            return
        connection = self._rotation.current
        sent = connection is not None and connection.alive
        self._caller.add(data, sent=sent)
        if connection is not None and sent:
            self.counters.audio_out_frames += 1
            connection.send_audio(protocol.audio(self._head, self._transcoder.to_provider(data)))

    def speak(self, instructions: str | None = None) -> None:
        """Ask for an answer now, or after the one in progress."""
        if not self._rotation.closed:
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
            self._update_due = way == "system turn"
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
        if added:
            self._note_due = False
            self._noted.append(call_id)
        message = protocol.tool_response(call_id, name, output, added)
        if not answer:
            # The agent waits for the result and is silent: so it stays, unless the caller speaks on.
            self._held[call_id] = message
            return
        if not self._turns.open_tools:
            self._turns.ask()
        self._send(message)

    def end_turn(self) -> None:
        """Say that the caller's sound pauses: the service takes their turn for ended."""

    def renew(self, cause: str) -> None:
        """Give the connection up, and go on over another."""

    async def close(self) -> None:
        """Close the socket, and give up opening another."""
        if not self._rotation.closed:
            self._emit(self._turns.flush())
        await self._rotation.close()
        self.counters.uplink_dropped_frames += self._caller.overflowed
        self._caller.overflowed = 0

    # --- connections ---

    async def _open(self) -> Connection:
        """Return a connection that is set up. Raises ProviderError."""
        opened: list[Connection] = []

        async def attempt() -> None:
            url, headers = await self._endpoint.open()
            handle, brief = self._handle, self._brief
            history = () if handle else tuple(self._turns.history)
            seeded = bool(history) and self._traits.seeded_history
            connection = Connection(
                handle, brief, self.counters, self._take, self._on_closed, debug=self._debug
            )
            setup = protocol.setup(self._options, self._traits, brief, handle, seeded=seeded)
            try:
                await connection.open(url, headers, setup, self._timeout_s)
            except ProviderError as error:
                if handle and error.code in _HANDLE_GONE:
                    self._handle = ""  # the next attempt begins a new session
                    error.code = "connect"
                raise
            if history:
                connection.send(protocol.history(history, self._traits))
            opened.append(connection)

        await open_in_time(PROVIDER, self._timeout_s, attempt)
        return opened[0]

    def _on_closed(self, connection: Connection, meaning: Closed) -> None:
        if connection is not self._rotation.current or self._rotation.closed:
            return
        if meaning.remedy == "new":
            self._handle = ""
        self._rotation.lost(meaning)

    # --- rotation.Owner ---

    @property
    def quiet(self) -> bool:
        """Return whether nothing is going on that another connection would lose."""
        return self._turns.quiet and not self._asked and not self._caller.voice

    def stale(self, connection: Connection) -> bool:
        """Return whether the session has got on since the connection was set up."""
        return connection.handle != self._handle or connection.brief is not self._brief

    def give_up_turn(self) -> None:
        """Take note that whatever is in progress will not go on."""
        begun = self._turns.generating
        owed, events = self._turns.lost()
        self._emit(events)
        if owed:
            self._unsaved.lost()
        else:
            self._unsaved.answered()
        request, self._request = self._request, ""
        if owed and request and not (begun and request == _SPEAK):
            self._asked.appendleft(request)
        else:
            self._answer_owed = self._answer_owed or owed
        self._held.clear()
        self._note_due = False
        if self._speaking:
            self._speaking = False
            self._on_event(SpeechStopped())

    def goes_on(self, connection: Connection, cause: str, gap_ms: int) -> None:
        """Hear that ``connection`` replaces another."""
        self.counters.reconnects += 1
        self._on_event(Reconnected(cause, bool(connection.handle), gap_ms))
        if self._answer_owed:
            self._answer_owed = False
            if not self._caller.voice:  # else their words are heard again, and answered
                self._asked.appendleft(_GO_ON)

    def begin(self, connection: Connection) -> None:
        """Tell a new connection what its session does not know, and go on over it."""
        said = self._unsaved.utterances
        if connection.handle and said and self._traits.notes == "content":
            connection.send(protocol.said(said))
        frames = self._caller.replay()
        if frames:
            self.counters.audio_out_frames += len(frames)
            connection.send(protocol.audio(self._head, self._transcoder.to_provider(b"".join(frames))))
        connection.begin()
        if connection.brief is not self._brief:
            self.update(self._brief)
        self._ask_next()

    def failed(self, error: ProviderError) -> None:
        """Hear that there is no connection, and will be none."""
        self._on_event(Fault(error))

    # --- sending ---

    def _send(self, message: bytes) -> None:
        if self._rotation.current is not None:
            self._rotation.current.send(message)

    def _ask_next(self) -> None:
        if self._asked and self._rotation.alive and self._turns.may_ask:
            words = self._asked.popleft()
            self._request = words
            breaks_off = self._turns.late and self._traits.notes == "content"
            self._turns.ask()
            self._send(protocol.request(words) if breaks_off else protocol.text(words))

    # --- receiving ---

    def _take(self, connection: Connection, message: Message) -> None:
        if connection is not self._rotation.current or self._rotation.closed:
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
                # The new instructions went with a result that nobody reads.
                self._update_due = self._update_due or call_id in self._noted
            self._emit(self._turns.calls_cancelled(message.tool_call_cancellation))
        if message.session_resumption_update is not None:
            update = message.session_resumption_update
            if update.resumable and update.new_handle:
                self._handle = update.new_handle
                self._caller.saved()
                self._unsaved.saved()
        if message.usage_metadata is not None:
            protocol.add_usage(self.counters.usage, message.usage_metadata)
        if message.go_away is not None:
            self._rotation.going_away(message.go_away.seconds)
        if self._update_due and self._turns.quiet:
            self._update_due = False
            self.update(self._brief)
        if not (self._turns.asked or self._turns.generating):
            self._request = ""
        self._ask_next()

    def _content(self, content: ServerContent) -> None:
        self._emit(self._turns.transcripts(content))
        turn = content.model_turn
        for part in (turn.parts or ()) if turn is not None else ():
            blob = part.inline_data
            if blob is not None and blob.data and (blob.mime_type or "audio/").startswith("audio/"):
                self._sound(blob.data)
        if content.generation_complete and not self._request:
            self._caller.answered()
        # A caller whose speech was told of has been noticed.
        self._emit(
            event
            for event in self._turns.ends(content)
            if not (self._speaking and isinstance(event, Interrupted))
        )

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
            match event:
                case CallerText():
                    self._unsaved.add(Utterance("caller", event.text))
                case AgentText():
                    self._unsaved.add(Utterance("agent", event.text))
                case ResponseStarted() if not self._request:
                    self._caller.answer_begins()
                case ResponseDone(status="completed"):
                    self._unsaved.answered()
            self._on_event(event)


def _note(brief: Brief) -> str:
    return f"{_NEW}\n{brief.focus or brief.instructions}"
