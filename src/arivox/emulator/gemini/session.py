"""One session of Gemini Live as a pure core: client frames, behaviour and time in, server frames out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from arivox.audio.format import SLIN16, SLIN24, AudioFormat
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.gemini import config, messages
from arivox.emulator.gemini.admission import Entrance
from arivox.emulator.gemini.caller import Caller
from arivox.emulator.gemini.config import Setup
from arivox.emulator.gemini.conversation import Conversation, Entry
from arivox.emulator.gemini.credentials import denied
from arivox.emulator.gemini.floor import Floor
from arivox.emulator.gemini.messages import (
    PROTOCOL,
    ClientContent,
    ContextUpdate,
    RealtimeInput,
    RefusedError,
    invalid,
)
from arivox.emulator.gemini.models import Traits
from arivox.emulator.gemini.options import GeminiOptions
from arivox.emulator.gemini.outlet import Outlet
from arivox.emulator.gemini.resumption import Handles
from arivox.emulator.gemini.turn import ModelTurn
from arivox.emulator.record import Record
from arivox.emulator.session import Wire
from arivox.emulator.timers import Timers
from arivox.errors import ProtocolError

_AUDIO: Final = "realtimeInput.audio"
_HANDLE_TTL_S: Final = {"studio": 7200.0, "vertex": 86_400.0}


class GeminiSession:
    """The protocol of one session. ``behaviour`` decides what the model says."""

    def __init__(
        self,
        behaviour: Behaviour,
        wire: Wire,
        record: Record,
        wake: Callable[[float], None],
        *,
        entrance: Entrance = Entrance(),  # noqa: B008 - frozen
        options: GeminiOptions = GeminiOptions(),  # noqa: B008 - frozen
        handles: Handles | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``wake`` is told when ``tick`` is next due (monotonic seconds)."""
        self.behaviour = behaviour
        self.record = record
        self.options = options
        self.entrance = entrance
        self.timers = Timers(wake)
        self.outlet = Outlet(wire, record)
        self.conversation = Conversation()
        self.setup: Setup | None = None
        """None until it came."""
        self.ready = False
        """Whether ``setupComplete`` was sent."""
        self.closed = False
        self._handles = Handles() if handles is None else handles
        self._wall_clock = wall_clock
        self._traits: Traits
        self._floor: Floor | None = None
        self._caller: Caller | None = None
        self._consumed = 0
        self._seeding = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "active" if self.active else "idle" if self.ready else "new"
        return f"<GeminiSession {self.entrance.backend} {state} received={self.received_ms / 1000:.1f}s>"

    @property
    def received_ms(self) -> float:
        """Return the length of all audio that ever came."""
        return self._caller.received_ms if self._caller is not None else 0.0

    @property
    def instructions(self) -> str:
        """Return what the model goes by: the newest text that tells a state, else the instruction."""
        return self.conversation.instructions

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of each function, by its name."""
        return config.schemas(self.conversation.tools)

    @property
    def input_format(self) -> AudioFormat:
        """Return the format of the caller's audio, after the rate it came in last."""
        return self._caller.format if self._caller is not None else SLIN16

    @property
    def output_format(self) -> AudioFormat:
        """Return the format of answers."""
        return SLIN24

    @property
    def active(self) -> ModelTurn | None:
        """Return the answer that is being generated."""
        return self._floor.active if self._floor is not None else None

    @property
    def responses(self) -> list[ModelTurn]:
        """Return every answer, the newest last."""
        return self._floor.responses if self._floor is not None else []

    @property
    def last_turn(self) -> Entry | None:
        """Return the caller's turn, if it was spoken and stands last in the history."""
        return self.conversation.last_turn

    @property
    def last_output(self) -> str:
        """Return the result of a function, if it stands last in the history."""
        return self.conversation.last_output

    @property
    def open_calls(self) -> int:
        """Return how many calls of functions have no result yet."""
        return len(self._floor.calls) if self._floor is not None else 0

    # Socket in.

    def open(self, now: float) -> None:
        """Begin, once the socket is open."""
        limit = self.options.connection_limit
        if limit is not None:
            warning = min(self.options.go_away_before, limit)
            self.timers.at(now + limit - warning, lambda then: self.go_away(warning, then))
        token = self.entrance.token
        if token is not None:
            self.timers.at(now + max(token.expires_at - self._wall_clock(), 0.0), self._expire)

    def receive_text(self, data: bytes, now: float) -> None:
        """Take one text frame."""
        self._receive(data, now)

    def receive_binary(self, data: bytes, now: float) -> None:
        """Take one binary frame: it means the same."""
        self._receive(data, now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.timers.run(now)

    def lost(self) -> None:
        """Take note that the socket is gone."""
        self.outlet.shut = True
        self._end()

    # What behaviours may do.

    def setup_complete(self, now: float) -> None:
        """Send ``setupComplete``."""
        vertex = self.entrance.backend == "vertex"
        self.ready = True
        self.outlet.emit(setupComplete={"sessionId": self.outlet.new_id("session")} if vertex else {})
        self._resumable(now)

    def go_away(self, seconds: float, now: float) -> None:
        """Announce that the connection is reset in ``seconds``, and do it then."""
        self.outlet.emit(goAway={"timeLeft": f"{seconds:g}s"})
        self.timers.at(now + seconds, self.abort)

    def abort(self, now: float) -> None:
        """Reset the connection."""
        del now
        self.outlet.abort()
        self._end()

    def write(self, kind: str, data: bytes) -> None:
        """Write one frame as it is, right or wrong."""
        self.outlet.write(kind, data)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket."""
        self.outlet.close(code, reason)
        self._end()

    def create_response(self, told: str = "") -> ModelTurn:
        """Begin an answer and return it; the behaviour is not asked.

        Raises:
            ProtocolError: One is being generated, or the session is not set up.
        """
        return self._sides()[0].create(told)

    def speech_started(self, now: float) -> str:
        """Find that the caller speaks, which interrupts the model; return the coming turn's id."""
        return self._sides()[1].started(now)

    def speech_stopped(self, now: float) -> Entry:
        """Find that the caller's turn is over; it is answered when the model is free."""
        return self._sides()[1].stopped(now)

    def transcribed(self, turn: Entry, transcript: str) -> None:
        """Send the transcript of what the caller said, in pieces whose end only Vertex marks."""
        self._sides()[1].transcribed(turn, transcript)

    # Client messages.

    def _receive(self, data: bytes, now: float) -> None:
        if self.closed:
            return
        self._consumed += 1
        try:
            blob = messages.decode_audio(data) if self.ready else None
            if blob is not None:
                self.record.note(_AUDIO, data, sent=False)
                self._sides()[1].hear(blob, now)
            else:
                self._read(data, now)
        except RefusedError as exc:
            self.close(exc.code, exc.reason)

    def _read(self, data: bytes, now: float) -> None:
        try:
            event = messages.parse(data)
        except RefusedError:
            self.record.note("", data, sent=False)
            raise
        kind = messages.kind_of(event)
        self.record.note(kind, data, sent=False)
        if self.setup is None:
            if "setup" not in event:
                raise invalid("The first message must be setup.")
            self._begin(messages.read(event), now)
            return
        if not self.ready:
            raise invalid("Nothing may be sent before setupComplete.")
        message = messages.read(event)
        self._handle(message, now)
        if kind != _AUDIO:
            self.behaviour.event(message, now)

    def _handle(self, message: messages.Message, now: float) -> None:
        match message:
            case RealtimeInput():
                self._realtime(message, now)
            case ClientContent():
                self._content(message, now)
            case messages.ToolResponse():
                self._sides()[0].deliver(message, now)
            case ContextUpdate():
                self._update(message)
            case _:
                raise invalid("setup must be the first message and only the first.")

    def _begin(self, data: messages.Message, now: float) -> None:
        assert isinstance(data, dict)
        if self.entrance.refusal is not None:
            raise self.entrance.refusal
        resumption = data.get("sessionResumption")
        resumes = isinstance(resumption, dict) and bool(resumption.get("handle"))
        if self.entrance.token is not None:
            data = self.entrance.token.begin(data, self._wall_clock(), resumes=resumes)
        setup, self._traits = config.read_setup(data, self.entrance.backend, self.entrance.version)
        if setup.session_resumption is not None and setup.session_resumption.handle:
            self._resume(setup, setup.session_resumption.handle, now)
        if setup.system_instruction is not None:
            self.conversation.instruct(setup.system_instruction.text)
        if setup.tools is not None:
            self.conversation.tools = tuple(setup.tools)
        self.setup = setup
        self._seeding = setup.history_config is not None and (
            setup.history_config.initial_history_in_client_content
        )
        self._floor = Floor(
            self.behaviour,
            self.outlet,
            self.timers,
            self.conversation,
            setup,
            self._traits,
            self.entrance.backend,
            speed=self.options.speed,
            transcribes=self.options.transcribes,
            on_resumable=self._resumable,
            close=self.close,
        )
        self._caller = Caller(
            self.behaviour,
            self.outlet,
            self.record,
            self.conversation,
            setup,
            self._floor,
            transcribes=self.options.transcribes,
            marks_end=self.entrance.backend == "vertex",
        )
        if self.behaviour.greets and not (resumes and self.options.resume_hangs):
            self.timers.at(now + self.options.setup_delay, self._greet)

    def _greet(self, now: float) -> None:
        self.setup_complete(now)
        self.behaviour.event(self.setup, now)

    def _resume(self, setup: Setup, handle: str, now: float) -> None:
        default = _HANDLE_TTL_S[self.entrance.backend]
        ttl = default if self.options.handle_ttl is None else self.options.handle_ttl
        if self.options.resume_refusal is not None:
            code, reason = self.options.resume_refusal
            raise RefusedError(reason, code)
        snapshot = self._handles.find(handle, ttl, now)
        if self.options.one_at_a_time and snapshot.in_use():
            raise RefusedError("Internal error encountered.", messages.INTERNAL)
        if snapshot.model != setup.model:
            raise invalid(f"setup.model: the session to resume has {snapshot.model}.")
        self.conversation = snapshot.conversation.copy()

    def _realtime(self, message: RealtimeInput, now: float) -> None:
        if message.media_chunks and not self._traits.media_chunks:
            raise RefusedError(
                "realtime_input.media_chunks is deprecated. Use audio, video, or text instead."
            )
        if (message.activity_start or message.activity_end) and not self._wishes.manual:
            raise RefusedError(
                "Explicit activity control is not supported when automatic activity detection is enabled."
            )
        if message.audio_stream_end and self._wishes.manual:
            raise invalid("realtimeInput.audioStreamEnd: automatic activity detection is disabled.")
        floor, caller = self._sides()
        if message.activity_start is not None:
            caller.started(now)
        for blob in (message.audio, *message.media_chunks):
            if blob is not None and (blob is message.audio or blob.mime_type.startswith("audio/")):
                caller.hear(blob, now)
        if message.audio_stream_end:
            caller.flush(now)
        if message.activity_end is not None:
            if not floor.caller_speaks:
                raise invalid("realtimeInput.activityEnd: there was no activityStart.")
            caller.stopped(now)
        if message.text is not None:
            self._type(message.text)
            if self.behaviour.answers:
                floor.want(message.text, now)

    def _content(self, message: ClientContent, now: float) -> None:
        floor, _ = self._sides()
        if self._traits.content == "seed" and not self._seeding:
            raise invalid("clientContent: this model takes it as initial history only.")
        for turn in message.turns:
            if turn.role == "system" and self.entrance.backend != "vertex":
                raise invalid("Please use a valid role: user, model.")
            if not turn.parts:
                raise invalid("clientContent.turns: a turn has no parts.")
        seeding = self._seeding
        asks = message.turn_complete and not seeding
        if asks:
            floor.halt(now)
        for turn in message.turns:
            if turn.role == "system":
                self.conversation.instruct(turn.text)
            elif turn.role == "model":
                self.conversation.entries.append(Entry(self.outlet.new_id("content"), "model", turn.text))
            else:
                self._type(turn.text)
        if seeding and message.turn_complete:
            self._seeding = False
        if asks and self.behaviour.answers:
            floor.want("\n".join(turn.text for turn in message.turns if turn.role in {None, "user"}), now)

    def _type(self, text: str) -> None:
        self.conversation.entries.append(Entry(self.outlet.new_id("content"), "user", text))
        self.conversation.note(text)

    def _update(self, message: ContextUpdate) -> None:
        if self._traits.context_update == "closes":
            raise invalid("contextUpdate: not supported by this model.")
        tools = message.tools.tools if message.tools is not None else None
        config.check_tools(tools or (), self._traits)
        if self.entrance.backend == "studio":
            return  # as seen on the live service: taken, without effect
        if message.system_instruction is not None:
            self.conversation.instruct(message.system_instruction.text)
        if tools is not None:
            self.conversation.tools = tuple(tools)

    # Inside.

    @property
    def _wishes(self) -> Setup:
        if self.setup is None:
            raise ProtocolError(PROTOCOL, "the session is not set up")
        return self.setup

    def _sides(self) -> tuple[Floor, Caller]:
        """Return the model's side and the caller's."""
        if self._floor is None or self._caller is None:
            raise ProtocolError(PROTOCOL, "the session is not set up")
        return self._floor, self._caller

    def _resumable(self, now: float | None) -> None:
        """Give the client a handle, or tell it that there is none at the moment (``now`` None)."""
        wanted = self._wishes.session_resumption
        if wanted is None:
            return
        update: dict[str, Any] = {}  # how Google's JSON says resumable: false
        if now is not None:
            handle = self._handles.keep(self._wishes.model, self.conversation, now, lambda: not self.closed)
            update = {"newHandle": handle, "resumable": True}
        if wanted.transparent:
            update["lastConsumedClientMessageIndex"] = str(self._consumed)
        self.outlet.emit(sessionResumptionUpdate=update)

    def _expire(self, now: float) -> None:
        del now
        refusal = denied("the token has expired.")
        self.close(refusal.code, refusal.reason)

    def _end(self) -> None:
        self.closed = True
        self.timers.clear()
        if self._floor is not None:
            self._floor.stop()
