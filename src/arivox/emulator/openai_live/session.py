"""One Live session as a pure core: client frames, behaviour and time in, server frames out.

The protocol has no turns. Where a model would judge by itself, this emulator keeps to rules:

- The caller's turns are found by energy. Speech of the caller stops the model at once; the end of a turn
  makes it answer.
- An appended instruction that holds the word "now" asks the model to speak at once, in place of what it is
  saying; any other is only kept in mind. While the caller speaks it waits.
- Appended thinking and commentary are kept in mind.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from arivox.audio.format import SLIN24, AudioFormat
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.hearing import Detection, Hearing
from arivox.emulator.openai.admission import Refusal
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai_live import messages
from arivox.emulator.openai_live.config import MAX_APPEND_TOKENS, LiveConfig, check_length
from arivox.emulator.openai_live.delegation import Backend
from arivox.emulator.openai_live.fixture import fixture_audio
from arivox.emulator.openai_live.messages import AUDIO_APPEND, AnyClientEvent
from arivox.emulator.openai_live.options import LiveOptions
from arivox.emulator.openai_live.outlet import LiveOutlet
from arivox.emulator.openai_live.speech import Speech
from arivox.emulator.openai_live.stream import OutputStream
from arivox.emulator.record import Record
from arivox.emulator.session import Wire
from arivox.emulator.timers import Timers
from arivox.emulator.vad import SpeechStarted

BAD_REQUEST_CLOSE: Final = 4000
_DETECTION: Final = Detection(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=500)
_STATE: Final = re.compile(r"^[ \t]*Current state:", re.MULTILINE)
_NOW: Final = re.compile(r"\bnow\b", re.IGNORECASE)

Reason = Literal["close_requested", "expired", "content", "remote_hangup", "connection_lost"]


@dataclass(slots=True, eq=False)
class LiveTurn:
    """What the caller said from one silence to the next. The wire knows nothing of it."""

    id: str
    audio: bytearray = field(default_factory=bytearray)
    audio_format: AudioFormat | None = None
    text: str = ""
    start_ms: int = 0
    end_ms: int = 0


class LiveSession:
    """The protocol of one session. ``behaviour`` decides what the model says."""

    config: LiveConfig
    """Set by ``session.start``, as ``stream`` is."""
    stream: OutputStream

    def __init__(
        self,
        behaviour: Behaviour,
        wire: Wire,
        record: Record,
        wake: Callable[[float], None],
        *,
        options: LiveOptions = LiveOptions(),  # noqa: B008 - frozen
        refusal: Refusal | None = None,
    ) -> None:
        """``wake`` is told when ``tick`` is next due (monotonic seconds)."""
        self.behaviour = behaviour
        self.record = record
        self.options = options
        self.timers = Timers(wake)
        self.outlet = LiveOutlet(wire, record)
        self.backend: Backend | None = None
        """Where functions are called; None without Responses delegation."""
        self.active: Speech | None = None
        """The running answer."""
        self.responses: list[Speech] = []
        """Every answer, the newest last."""
        self.turns: list[LiveTurn] = []
        """Every turn of the caller, the newest last."""
        self.appended: list[str] = []
        """Every text that was appended, of any kind."""
        self.muted = False
        self.closed = False
        self._refusal = refusal
        self._begun = False
        self._answered = False  # the client knows that it has begun
        self._began = 0.0
        self._hearing = Hearing(_DETECTION, SLIN24, listen=False)
        self._told = ""
        self._turn: LiveTurn | None = None
        self._last_turn: LiveTurn | None = None
        self._last_output = ""
        self._asked: deque[str] = deque()
        self._delegations: set[str] = set()
        self._fixture: Speech | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.active.id if self.active else "idle"
        return f"<LiveSession {state} received={self.received_ms / 1000:.1f}s>"

    @property
    def received_ms(self) -> float:
        """Return the length of all audio ever appended: where the session's timeline has come to."""
        return self._hearing.received_ms

    @property
    def instructions(self) -> str:
        """Return the newest text that names the current state, else what the session began with."""
        return self._told

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of each function of the backend, by its name."""
        return self.config.tools if self._begun else {}

    @property
    def input_format(self) -> AudioFormat:
        """Return the format of the caller's audio."""
        return self.config.audio_format if self._begun else SLIN24

    @property
    def output_format(self) -> AudioFormat:
        """Return the format of answers, the same."""
        return self.input_format

    @property
    def last_turn(self) -> LiveTurn | None:
        """Return the caller's turn, if the model has neither spoken nor called a function since."""
        return self._last_turn

    @property
    def last_output(self) -> str:
        """Return the output of the backend's last function, if the model has not spoken since."""
        return self._last_output

    # Socket in.

    def open(self, now: float) -> None:
        """Wait for ``session.start``, or refuse the connection the way the service does."""
        del now
        if self._refusal is not None:
            self.fatal(self._refusal.error, self._refusal.close_code)

    def receive_text(self, data: bytes, now: float) -> None:
        """Take one text frame."""
        try:
            event = messages.decode(data)
        except RequestError as exc:
            kind = messages.kind_of(data)
            self.record.note(kind, data, sent=False)
            self._refuse(exc, kind)
            return
        if type(event) is messages.InputAudioAppend and self._answered:
            self.record.note(AUDIO_APPEND, data, sent=False)
            self._append(event.audio, now)
            return
        kind = str(event.__struct_config__.tag)
        self.record.note(kind, data, sent=False)
        try:
            self._handle(event, now)
        except RequestError as exc:
            exc.event_id = event.event_id
            self._refuse(exc, kind)
        if not self.closed and type(event) is not messages.InputAudioAppend:
            self.behaviour.event(event, now)

    def receive_binary(self, data: bytes, now: float) -> None:
        """Take one binary frame: the service refuses them."""
        del now
        self.record.note("", data, sent=False)
        self.error(RequestError("invalid_event", "Binary messages are not supported; send JSON text."))

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.timers.run(now)

    def lost(self) -> None:
        """Take note that the socket is gone."""
        self.closed = True
        self._asked.clear()
        self.timers.clear()

    # What behaviours may do.

    def started(self, to: str | None = None) -> None:
        """Send ``session.started``, in answer to the client's event with the id ``to``."""
        self._answered = True
        self.outlet.answer(to, "session.started", session=self.config.as_dict())
        now = self.outlet.clock()
        self.stream.start(now)
        self.timers.at(now + self.options.usage_every, self._report)

    def error(self, error: RequestError) -> None:
        """Send an ``error`` event."""
        self.outlet.error(error)

    def info(self, code: str, message: str) -> None:
        """Send an ``info`` event."""
        self.outlet.emit("info", code=code, message=message)

    def delegate(self) -> str:
        """Delegate a task to the client, as the model does where the client does its work; return its id."""
        task_id = self.outlet.new_id("deleg")
        self._delegations.add(task_id)
        delegation = {"id": task_id, "target": "client", "type": "delegation"}
        self.outlet.emit("session.delegation.created", delegation=delegation, offset_ms=int(self.received_ms))
        return task_id

    def write(self, kind: str, data: bytes) -> None:
        """Write one frame as it is, right or wrong."""
        self.outlet.write(kind, data)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket."""
        self.lost()
        self.outlet.close(code, reason)

    def fatal(self, error: RequestError, code: int) -> None:
        """Send an ``error`` event and close with it as the reason, as the service does."""
        self.error(error)
        self.close(code, f"{error.type}.{error.code}")

    def end(self, reason: Reason, now: float, to: str | None = None) -> None:
        """Finish the session: say why and what it cost, then close."""
        self._asked.clear()
        if self.active is not None:
            self.active.cancel("client_cancelled", now)
        self.outlet.answer(
            to, "session.closed", reason=reason, session=self.config.as_dict(), usage=self._usage(now)
        )
        self.close(1000)

    def create_response(self, instructions: str = "") -> Speech:
        """Begin an answer and return it; the behaviour is not asked.

        Raises:
            RequestError: The model speaks already, or cannot speak.
        """
        if not self._begun or self._fixture is not None:
            raise RequestError("invalid_state", "There is no session that could speak now.")
        if self.active is not None:
            raise RequestError("invalid_state", f"The model has not finished {self.active.id}.")
        speech = Speech(
            self.outlet,
            self.timers,
            self.stream,
            self.backend,
            tools=self.tools,
            instructions=instructions,
            on_begin=self._acted,
            on_done=self._spoken,
        )
        self.responses.append(speech)
        self.active = speech
        return speech

    def speech_started(self, now: float, start_ms: int | None = None) -> str:
        """Find that the caller speaks: the model stops. Return the coming turn's id."""
        start = int(self.received_ms) if start_ms is None else start_ms
        self._turn = LiveTurn(self.outlet.new_id("turn"), audio_format=self.input_format, start_ms=start)
        if self.active is not None:
            self.active.cancel("turn_detected", now)
        self.behaviour.interrupted(now)
        return self._turn.id

    def speech_stopped(self, now: float, end_ms: int | None = None) -> LiveTurn:
        """End the caller's turn, and want an answer."""
        if self._turn is None:
            self.speech_started(now)
        turn, self._turn = self._turn, None
        assert turn is not None
        turn.end_ms = int(self.received_ms) if end_ms is None else end_ms
        turn.audio += self._hearing.cut(turn.start_ms, turn.end_ms)
        self.turns.append(turn)
        self._last_turn = turn
        self.behaviour.heard(turn, now)
        self._ask("", now)
        return turn

    def transcribed(self, turn: LiveTurn, transcript: str) -> None:
        """Send what the caller said, word by word, each in its share of the turn's time."""
        turn.text = transcript
        words = transcript.split()
        if self.closed or not words:
            return
        step = (turn.end_ms - turn.start_ms) / len(words)
        for index, word in enumerate(words):
            start_ms = turn.start_ms + int(index * step)
            end_ms = turn.start_ms + int((index + 1) * step)
            self.outlet.words("input", word, start_ms, end_ms, apart=True)

    # Client events.

    def _refuse(self, error: RequestError, kind: str) -> None:
        # What cannot be started is lost; what goes wrong later is not.
        if kind == "session.start" and not self._begun:
            self.fatal(error, BAD_REQUEST_CLOSE)
        else:
            self.error(error)

    def _handle(self, event: AnyClientEvent, now: float) -> None:
        if isinstance(event, messages.SessionStart):
            self._start(event, now)
            return
        if not self._answered:
            raise RequestError("session_not_started", "Send session.start first, and wait for its answer.")
        match event:
            case messages.SessionUpdate(session=session, event_id=to):
                self.config.update(session)
                self._keep(session.get("delegation"))
                self.outlet.answer(to, "session.updated", session=self.config.as_dict())
            case messages.InputAudioMute(event_id=to):
                self.muted = True
                self.outlet.answer(to, "session.input_audio.muted")
            case messages.InputAudioUnmute(event_id=to):
                self.muted = False
                self.outlet.answer(to, "session.input_audio.unmuted")
            case messages.Append():
                self._append_text(event, now)
            case messages.FixturePlay(audio=audio, event_id=to):
                self._play(audio, to, now)
            case messages.ResponseItemCreate(item=item):
                self._backend().put(item)
                if item.get("type") == "function_call_output":
                    self._last_output = str(item.get("output", ""))
            case messages.ResponseCreate():
                self._backend().proceed(now)
            case messages.SessionClose(event_id=to):
                self.end("close_requested", now, to)
            case _:
                raise RequestError("unsupported", "This emulator makes no decisions.", param="type")

    def _start(self, event: messages.SessionStart, now: float) -> None:
        if self._begun:
            raise RequestError("session_already_started", "The session has started already.")
        self.config = LiveConfig(event.session, self.options.models)
        self.config.begin(self.outlet.new_id("sess"), int(time.time() + self.options.expires_after))
        form = self.config.audio_format
        self._hearing = Hearing(_DETECTION, form, listen=self.behaviour.listens)
        self.stream = OutputStream(self.outlet, self.timers, form, self.options, lambda: self.received_ms)
        if self.config.delegation == "responses":
            self.backend = Backend(self.outlet, self.config, lambda: self.received_ms, self._result)
        self._told = self.config.instructions
        self._keep(event.session.get("delegation"))
        before = self.config.input
        if before and before[-1]["role"] == "user":
            self._last_turn = LiveTurn(self.outlet.new_id("turn"), text=before[-1]["content"][0]["text"])
        self._begun = True
        self._began = now
        self.timers.at(now + self.options.expires_after, lambda now: self.end("expired", now))
        if self.behaviour.greets:
            self.started(event.event_id)

    def _append_text(self, event: messages.Append, now: float) -> None:
        if event.delegation_id is not None and event.delegation_id not in self._delegations:
            message = f"The client has no delegation '{event.delegation_id}'."
            raise RequestError("invalid_value", message, param="delegation_id")
        check_length(event.content, MAX_APPEND_TOKENS, "content")
        self._no_fixture()
        self.appended.append(event.content)
        if _STATE.search(event.content):
            self._told = event.content
        at = int(self.received_ms)
        kind = f"{event.__struct_config__.tag}ed"
        self.outlet.answer(event.event_id, kind, start_ms=at, end_ms=at)
        wants = isinstance(event, messages.InstructionsAppend) and _NOW.search(event.content)
        if wants and self.behaviour.answers:
            if self.active is not None and self.active.busy:
                self._asked.append(event.content)
                self.active.cancel("client_cancelled", now)
            else:
                self._ask(event.content, now)

    def _keep(self, delegation: Any) -> None:
        """Take note of what a delegation's backend is told, if that names the state."""
        responses = delegation.get("responses") if isinstance(delegation, dict) else None
        told = responses.get("instructions") if responses else None
        if told and _STATE.search(told):
            self._told = told

    def _backend(self) -> Backend:
        if self.backend is None:
            raise RequestError(
                "invalid_value",
                f"The session delegates to '{self.config.delegation}'; there is no Responses backend.",
                param="type",
            )
        return self.backend

    def _result(self, now: float) -> None:
        if self.behaviour.answers:
            self._ask("", now)

    # Caller's audio.

    def _append(self, audio: bytes, now: float) -> None:
        if self.record.keep_audio:
            self.record.audio_received += audio
        if self.muted or self._fixture is not None:
            form = self.config.audio_format
            audio = form.silence * (len(audio) // form.sample_bytes)
        events = self._hearing.append(audio)
        if self._fixture is None:
            self.behaviour.audio(audio, now)
        for event in events:
            if isinstance(event, SpeechStarted):
                self.speech_started(now, event.start_ms)
            else:
                self.speech_stopped(now, event.end_ms)

    # Answers.

    def _ask(self, instructions: str, now: float) -> None:
        """Want an answer as soon as nobody speaks; those without instructions need but one."""
        if instructions or "" not in self._asked:
            self._asked.append(instructions)
        self._answer(now)

    def _answer(self, now: float) -> None:
        if self._asked and self.active is None and self._turn is None and self._fixture is None:
            self.behaviour.wanted(self.create_response(self._asked.popleft()), now)

    def _acted(self) -> None:
        self._last_turn = None
        self._last_output = ""

    def _spoken(self, speech: Speech, now: float) -> None:
        del speech
        self.active = None
        self._answer(now)

    # Fixtures.

    def _no_fixture(self) -> None:
        if self._fixture is not None:
            raise RequestError("fixture_active", "An audio fixture is being played.", param="type")

    def _play(self, clip: bytes, to: str | None, now: float) -> None:
        self._no_fixture()
        audio = fixture_audio(clip, self.config.audio_format)
        self._fixture = fixture = Speech(
            self.outlet,
            self.timers,
            self.stream,
            None,
            tools={},
            on_done=lambda _, now: self._drain(to, now),
        )
        if self.active is not None:
            self.active.cancel("client_cancelled", now)
        self.outlet.answer(to, "session.output_audio.fixture.playing")
        fixture.say(audio, "", now)
        fixture.end(now)

    def _drain(self, to: str | None, now: float) -> None:
        def played(now: float) -> None:
            self._fixture = None
            self.outlet.answer(to, "session.output_audio.fixture.played")
            self._answer(now)

        self.timers.at(max(self.stream.until, now), played)

    # Time.

    def _usage(self, now: float) -> dict[str, float]:
        return {"seconds": round(max(now - self._began, 0.0), 3)}

    def _report(self, now: float) -> None:
        self.outlet.emit("session.usage.updated", usage=self._usage(now))
        self.timers.at(now + self.options.usage_every, self._report)
