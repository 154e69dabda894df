"""A session with Gemini Live: joins its connections, one after another, to the protocol and the turns.

The service keeps the conversation and gives handles to take it up; ``rotation`` decides when. What no handle
holds yet the next connection is told here.
"""

from __future__ import annotations

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
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    ConnectionLost,
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
    ToolCall,
    ToolCallsCancelled,
    Utterance,
)
from arivox.providers.gemini import protocol
from arivox.providers.gemini.caller import CallerAudio
from arivox.providers.gemini.closes import Closed
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.endpoint import setup_options
from arivox.providers.gemini.models import traits_of
from arivox.providers.gemini.opener import Opener
from arivox.providers.gemini.orphans import Orphans
from arivox.providers.gemini.protocol import PROVIDER, RATE_OUT, Message, ServerContent
from arivox.providers.gemini.requests import Requests
from arivox.providers.gemini.rotation import Rotation
from arivox.providers.gemini.turn import Turns
from arivox.providers.gemini.unsaved import Unsaved
from arivox.providers.transcoder import Transcoder
from arivox.settings.settings import Settings

log = structlog.get_logger()

_OVERDUE_S: Final = 2.0  # an answer that was asked for begins sooner
_NEW: Final = "(New instructions, not from the caller. They replace the earlier ones.)"


class GeminiSession:
    """One conversation with Gemini Live. See ``providers.base.ProviderSession`` for the verbs."""

    name = PROVIDER

    def __init__(self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent) -> None:
        self.counters = SessionCounters()
        self._audio = audio
        self._options = setup_options(settings)
        self._traits = traits_of(settings.gemini_model_name)
        self.capabilities = self._traits.capabilities(self._options.backend)
        rate = int(settings.gemini_target_input_sample_rate)
        self._transcoder = Transcoder(audio, up=rate, down=RATE_OUT)
        self._head = protocol.audio_head(rate)
        self._on_event = on_event
        self._debug = settings.log_level == "debug"
        self._turns = Turns(settings.gemini_history_max_turns, idle_status=self._traits.idle_status)
        self._caller = CallerAudio(cast(Law, audio.law))
        self._brief = Brief("")
        self._opener = Opener(
            settings,
            self._options,
            self._traits,
            self._new_connection,
            lambda: self._brief,
            lambda: self._turns.history,
        )
        self._resumption = self._opener.resumption
        self._rotation = Rotation(self, self._opener.open)
        self._requests = Requests()
        self._orphans = Orphans()
        self._unsaved = Unsaved()
        self._between = False  # a connection was given up, and no other is in use
        self._speaking = False  # the caller, as far as the service tells
        self._asked_at = 0.0
        self._wrote = False  # the service has answered in text
        self._held: dict[str, bytes] = {}  # results after which the agent shall not speak
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
        return bool(turns.generating or turns.asked or turns.open_tools or self._requests)

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open and set up the session, trying again while time allows. Raises ProviderError."""
        self._brief = brief
        self._turns.history.extend(brief.history)
        connection = await self._opener.open()
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
        sent = connection is not None and connection.alive and not self._holding
        self._caller.add(data, sent=sent)
        if connection is not None and sent:
            self.counters.audio_out_frames += 1
            connection.send_audio(protocol.audio(self._head, self._transcoder.to_provider(data)))
        if self._requests.waits_for_pause and not self._caller.cut_off:
            self._requests.caller_pauses(heard=self._caller.talked_on)
            self._on_event(CallerActive())  # they wait for an answer now
            self._ask_next()

    def speak(self, instructions: str | None = None) -> None:
        """Ask for an answer now, or after the one in progress."""
        if not self._rotation.closed:
            self._requests.add(instructions)
            self._ask_next()

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Drop what still comes of the answer in progress.

        The service keeps in its memory what it has sent, heard or not: it cannot be told.
        """
        self._turns.cut(cancel=cancel)
        self._transcoder.restart()
        if cancel:
            return
        self._requests.caller_interrupts()
        held, self._held = self._held, {}
        for message in held.values():
            self._send(message)

    def update(self, brief: Brief) -> None:
        """Change the instructions, and the tools where the service can."""
        self._brief = brief
        way = self.capabilities.update
        if self._between:
            return  # the next connection is set up with it, or told
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
        call = self._turns.tool_answered(call_id)
        if call is None:
            log.debug("the present connection waits for no such result", call_id=call_id)
            self._orphans.returned(call_id)
            self._release()
            return
        added = _note(self._brief) if self._note_due else ""
        if added:
            self._note_due = False
            self._noted.append(call_id)
        message = protocol.tool_response(call.wire_id, call.name, output, added)
        if not answer:
            # The agent waits for the result and is silent: so it stays, unless the caller speaks on.
            self._held[call_id] = message
            return
        if not self._turns.open_tools:
            self._expect_answer()
        self._send(message)
        self._release()

    def end_turn(self) -> None:
        """Say that the caller's sound pauses: the service takes their turn for ended."""
        self._speaking = False
        if not self._holding:
            self._send(protocol.AUDIO_STREAM_END)

    def renew(self, cause: str) -> None:
        """Give the connection up, which is mute, and go on over another."""
        self._rotation.renew(cause)

    async def close(self) -> None:
        """Close the socket, and give up opening another."""
        if not self._rotation.closed:
            self._emit(self._turns.flush())
        await self._rotation.close()
        self.counters.uplink_dropped_frames += self._caller.overflowed
        self._caller.overflowed = 0

    # --- connections ---

    def _new_connection(self, handle: str, brief: Brief) -> Connection:
        return Connection(handle, brief, self.counters, self._take, self._on_closed, debug=self._debug)

    def _on_closed(self, connection: Connection, meaning: Closed) -> None:
        if connection is self._rotation.current and not self._rotation.closed:
            self._rotation.lost(meaning)

    # --- rotation.Owner ---

    @property
    def quiet(self) -> bool:
        """Return whether nothing is going on that another connection would lose."""
        awaited = self._requests or self._requests.waits_for_pause or self._caller.voice
        return self._turns.quiet and not awaited

    @property
    def overdue(self) -> bool:
        """Return whether an answer is awaited that should have begun, and nothing else is going on."""
        if self._orphans or not self._turns.still:
            return False
        asked = self._turns.asked and time.monotonic() - self._asked_at > _OVERDUE_S
        return asked or self._caller.unanswered

    def stale(self, connection: Connection) -> bool:
        """Return whether the session has got on since the connection was set up."""
        return self.outdated(connection) or connection.brief is not self._brief

    def outdated(self, connection: Connection) -> bool:
        """Return whether the connection takes the session up from before the latest handle."""
        return connection.handle != self._resumption.handle

    def begin_anew(self) -> None:
        """Take note that the next connection takes no session up."""
        self._resumption.given_up()

    def give_up_turn(self, meaning: Closed | None = None) -> None:
        """Take note that whatever is in progress will not go on."""
        self._between = True
        begun = self._turns.generating
        tools = self._orphans.lost(self._turns.open_tools, meaning.code if meaning is not None else 0)
        owed, events = self._turns.lost()
        self._on_event(ConnectionLost())
        self._emit(events)
        tripped = meaning is not None and meaning.tripped
        if tripped:
            owed = owed or self._caller.voice
            self._caller.forget()
            self._tell_less()
        if tools:
            self._requests.left_to_tools()
        elif tripped:
            self._requests.tripped(owed=owed)
        else:
            self._requests.lost(owed=owed, begun=begun)
        if owed and not (tools or tripped):
            self._unsaved.lost()  # they are heard again
        else:
            self._unsaved.answered()
        self._held.clear()
        self._note_due = self._update_due = False
        if self._speaking:
            self._speaking = False
            self._on_event(SpeechStopped())

    def _tell_less(self) -> None:
        """Choose what the next connection is told in place of the sound that tripped the service."""
        if self._traits.notes == "text":
            self.begin_anew()  # a session that is taken up could not be told what the caller said
        connection = self._rotation.current
        if connection is not None and not connection.useful:
            # It was no sound: the text, then.
            self._unsaved.saved()
            if not connection.handle:
                self._turns.history.clear()

    def goes_on(self, connection: Connection, cause: str, gap_ms: int) -> None:
        """Hear that ``connection`` replaces another."""
        self.counters.reconnects += 1
        self._on_event(Reconnected(cause, bool(connection.handle), gap_ms))
        self._requests.goes_on(
            heard_again=self._caller.voice, speaking=self._caller.speaking, cut_off=self._caller.cut_off
        )

    def begin(self, connection: Connection) -> None:
        """Tell a new connection what its session does not know, and go on over it."""
        self._between = False
        said = self._unsaved.utterances
        if connection.handle and said and self._traits.notes == "content":
            connection.send(protocol.said(said))
        if self._holding:
            self._caller.lost()
        else:
            self._send_frames(connection, self._caller.replay())
        connection.begin()
        if connection.brief is not self._brief:
            self.update(self._brief)
        self._ask_next()

    def failed(self, error: ProviderError) -> None:
        """Hear that there is no connection, and will be none."""
        self._emit(self._turns.lost()[1])
        self._on_event(Fault(error))

    # --- sending ---

    @property
    def _holding(self) -> bool:
        """Return whether the caller's sound waits until the results of tools are sent."""
        return self._orphans.holds_sound and bool(self._orphans or self._turns.open_tools)

    def _release(self) -> None:
        """Send the sound that was held, if nothing holds it any more."""
        connection = self._rotation.current
        if self._orphans.holds_sound and not self._holding and connection is not None and connection.alive:
            self._send_frames(connection, self._caller.unsent())

    def _send_frames(self, connection: Connection, frames: Sequence[bytes]) -> None:
        if frames:
            self.counters.audio_out_frames += len(frames)
            connection.send(protocol.audio(self._head, self._transcoder.to_provider(b"".join(frames))))

    def _send(self, message: bytes) -> None:
        if self._rotation.current is not None:
            self._rotation.current.send(message)

    def _expect_answer(self) -> None:
        self._turns.ask()
        self._asked_at = time.monotonic()

    def _ask_next(self) -> None:
        if self._requests.waiting and self._rotation.alive and self._turns.may_ask:
            words = self._requests.take()
            breaks_off = self._turns.late and self._traits.notes == "content"
            self._expect_answer()
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
            self._cancelled(self._turns.calls_cancelled(message.tool_call_cancellation))
        if message.session_resumption_update is not None:
            update = message.session_resumption_update
            if update.resumable and update.new_handle:
                self._resumption.given(update.new_handle)
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
            self._requests.answered()
        self._ask_next()

    def _content(self, content: ServerContent) -> None:
        self._emit(self._turns.transcripts(content))
        turn = content.model_turn
        for part in (turn.parts or ()) if turn is not None else ():
            blob = part.inline_data
            if blob is not None and blob.data and (blob.mime_type or "audio/").startswith("audio/"):
                self._sound(blob.data)
            elif part.text and not part.thought:
                self._turns.wrote_text()
        # Not all say that all is generated before they say that the turn is over.
        complete = content.turn_complete and self._turns.generating and not content.interrupted
        if (content.generation_complete or complete) and not self._requests.own_words:
            self._caller.answered()
        if content.turn_complete and self._turns.wrote and self._turns.still and not self._wrote:
            self._wrote = True
            log.warning("the AI answers in text instead of speech", model=self._options.model)
        # A caller whose speech was told of has been noticed.
        self._emit(
            event
            for event in self._turns.ends(content, voice=self._caller.voice, talking=self._caller.talking)
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

    def _cancelled(self, calls: Sequence[str]) -> None:
        if not calls:
            return
        for call_id in calls:
            self._held.pop(call_id, None)
            # The new instructions went with a result that nobody reads.
            self._update_due = self._update_due or call_id in self._noted
        self._on_event(ToolCallsCancelled(tuple(calls)))
        self._release()

    def _activity(self, kind: str) -> None:
        if kind.endswith("ACTIVITY_START"):
            self._speaking = True
            self._on_event(SpeechStarted())
        elif kind.endswith("ACTIVITY_END"):
            self._speaking = False
            self._on_event(SpeechStopped())

    def _emit(self, events: Iterable[ProviderEvent]) -> None:
        """Tell what has happened, and take note of what is answered by it."""
        for event in events:
            match event:
                case CallerText():
                    self._unsaved.add(Utterance("caller", event.text))
                case AgentText():
                    self._unsaved.add(Utterance("agent", event.text))
                case ToolCall():
                    # The caller's words are acted on: the next connection is told them, and not to act again.
                    self._caller.acted_on()
                    self._unsaved.answered()
                case ResponseStarted() if not (self._turns.mute or self._requests.own_words):
                    self._caller.answer_begins()
                    self._requests.answer_begins()
                case ResponseDone(status="completed") if not self._turns.mute:
                    self._unsaved.answered()
            self._on_event(event)


def _note(brief: Brief) -> str:
    return f"{_NEW}\n{brief.focus or brief.instructions}"
