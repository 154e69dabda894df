"""One Realtime session (GA) as a pure core: client frames, behaviour and time in, server frames out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from arivox.audio.format import AudioFormat
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.hearing import Detection, Hearing
from arivox.emulator.openai import dialect, messages
from arivox.emulator.openai.admission import Refusal
from arivox.emulator.openai.config import FORMATS, Pcm24, Pcma, Pcmu, SemanticVad, SessionConfig
from arivox.emulator.openai.conversation import Conversation, Item, text_tokens
from arivox.emulator.openai.messages import AnyClientEvent, RequestError, ResponseParams
from arivox.emulator.openai.outlet import Outlet
from arivox.emulator.openai.response import Response, Shape, schemas
from arivox.emulator.openai.usage import Meter
from arivox.emulator.record import Record
from arivox.emulator.session import Turn, Wire
from arivox.emulator.timers import Timer, Timers
from arivox.emulator.vad import SpeechStarted

_MIN_COMMIT_MS: Final = 100
_SEMANTIC_SILENCE_MS: Final = {"low": 1200, "medium": 700, "auto": 700, "high": 400}
_RATE_LIMITS_DELAY_S: Final = 0.04  # as seen on the live service, after response.done
_TOKENS_PER_MINUTE: Final = 40_000


@dataclass(frozen=True, slots=True)
class Options:
    """What can be different about an emulated service."""

    beta: bool = False
    """Speak the beta's dialect instead of GA."""
    speed: float = 4.0
    """Pace of speech in multiples of real time."""
    expires_after: float = 3600.0
    """Seconds a session may last."""
    rate_limits: bool = True
    """Send ``rate_limits.updated`` after each response."""


class OpenAISession:
    """The protocol of one session. ``behaviour`` decides what the model says."""

    def __init__(
        self,
        behaviour: Behaviour,
        wire: Wire,
        record: Record,
        wake: Callable[[float], None],
        *,
        model: str = "gpt-realtime-2.1",
        options: Options = Options(),
        refusal: Refusal | None = None,
    ) -> None:
        """``wake`` is told when ``tick`` is next due (monotonic seconds)."""
        self.behaviour = behaviour
        self.record = record
        self.options = options
        self.timers = Timers(wake)
        self.outlet = Outlet(wire, record, beta=options.beta)
        expires_at = int(time.time() + options.expires_after)
        self.config = SessionConfig(self.outlet.new_id("sess"), model, expires_at)
        self.conversation = Conversation(self.outlet.new_id("conv"))
        self.active: Response | None = None
        """The running response of the default conversation."""
        self.responses: list[Response] = []
        """Every response, the newest last."""
        self.closed = False
        self._others: list[Response] = []
        self._refusal = refusal
        self._hearing = Hearing(self._detection(), self.config.input_format, listen=behaviour.listens)
        self._meter = Meter()
        self._turn: str | None = None
        self._turn_at_ms = 0
        self._voice_frozen = False
        self._idle: Timer | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.active.id}" if self.active else "idle"
        return f"<OpenAISession {state} received={self.received_ms / 1000:.1f}s>"

    @property
    def received_ms(self) -> float:
        """Return the length of all audio ever appended."""
        return self._hearing.received_ms

    @property
    def instructions(self) -> str:
        """Return what the model is told."""
        return self.config.instructions

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of each function, by its name."""
        return schemas(self.config.tools)

    @property
    def input_format(self) -> AudioFormat:
        """Return the format of the caller's audio."""
        return self.config.input_format

    @property
    def output_format(self) -> AudioFormat:
        """Return the format of responses."""
        return self.config.output_format

    @property
    def last_turn(self) -> Item | None:
        """Return the user's message, if it is the last item of the conversation."""
        last = self.conversation.items[-1] if self.conversation.items else None
        return last if last is not None and last.data.get("role") == "user" else None

    @property
    def last_output(self) -> str:
        """Return the output of a function, if it is the last item of the conversation."""
        last = self.conversation.items[-1] if self.conversation.items else None
        found = last is not None and last.data.get("type") == "function_call_output"
        return str(last.data.get("output", "")) if last is not None and found else ""

    # Socket in.

    def open(self, now: float) -> None:
        """Begin, once the socket is open, or refuse it the way the service does."""
        if self._refusal is not None:
            self.fatal(self._refusal.error, self._refusal.close_code)
            return
        self.timers.at(now + self.options.expires_after, self._expire)
        if self.behaviour.greets:
            self.created()

    def receive_text(self, data: bytes, now: float) -> None:
        """Take one text frame."""
        try:
            event = messages.decode(data) if not self.options.beta else self._decode_beta(data)
        except RequestError as exc:
            self.record.note(_kind_of(data), data, sent=False)
            self.error(exc)
            return
        if type(event) is messages.InputAudioAppend:
            self.record.note("input_audio_buffer.append", data, sent=False)
            self._append(event.audio, now)
            return
        self.record.note(str(event.__struct_config__.tag), data, sent=False)
        try:
            self._handle(event, now)
        except RequestError as exc:
            exc.event_id = event.event_id
            self.error(exc)
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
        self.timers.clear()

    # What behaviours may do.

    def created(self) -> None:
        """Send ``session.created``."""
        self.outlet.emit("session.created", session=self.config.as_dict())
        if self.options.beta:
            conversation = {"id": self.conversation.id, "object": "realtime.conversation"}
            self.outlet.emit("conversation.created", conversation=conversation)

    def error(self, error: RequestError) -> None:
        """Send an ``error`` event."""
        self.outlet.emit("error", error=error.as_error())

    def write(self, kind: str, data: bytes) -> None:
        """Write one frame as it is, right or wrong."""
        self.outlet.write(kind, data)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket."""
        self.closed = True
        self.timers.clear()
        self.outlet.close(code, reason)

    def fatal(self, error: RequestError, code: int) -> None:
        """Send an ``error`` event and close with it as the reason, as the service does."""
        self.error(error)
        self.close(code, f"{error.type}.{error.code}")

    def create_response(self, params: ResponseParams | None = None, *, by_client: bool = False) -> Response:
        """Start a response and return it; the behaviour is not asked.

        Raises:
            RequestError: The conversation has one already.
        """
        params = params or ResponseParams()
        shape = self._shape(params, by_client=by_client)
        out_of_band = params.conversation == "none"
        if not out_of_band and self.active is not None:
            raise RequestError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        response = Response(
            shape,
            None if out_of_band else self.conversation,
            self.outlet,
            self.timers,
            speed=self.options.speed,
            on_done=self._response_done,
        )
        self.responses.append(response)
        if out_of_band:
            self._others.append(response)
        else:
            self.active = response
        self._stop_idle()
        return response

    def speech_started(self, now: float, start_ms: int | None = None) -> str:
        """Tell the client that the caller speaks, and interrupt the response; return the coming item's id."""
        self._turn = self.outlet.new_id("item")
        self._turn_at_ms = int(self.received_ms) if start_ms is None else start_ms
        self._stop_idle()
        self.outlet.emit(
            "input_audio_buffer.speech_started", audio_start_ms=self._turn_at_ms, item_id=self._turn
        )
        detection = self.config.turn_detection
        if self.active is not None and (detection is None or detection.interrupt_response):
            self.active.cancel("turn_detected", now)
        self.behaviour.interrupted(now)
        return self._turn

    def speech_stopped(self, now: float, end_ms: int | None = None) -> Item:
        """End the caller's turn: commit it and, if turn detection says so, want a response."""
        if self._turn is None:
            self.speech_started(now)
        turn = self._turn or ""
        self._turn = None
        end_ms = int(self.received_ms) if end_ms is None else end_ms
        self.outlet.emit("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=turn)
        audio = self._hearing.cut(self._turn_at_ms, end_ms)
        item = self._commit(turn, audio, now)
        detection = self.config.turn_detection
        if self.active is None and (detection is None or detection.create_response):
            response = self.create_response()
            self.behaviour.wanted(response, now)
        return item

    def transcribed(self, item: Item, transcript: str) -> None:
        """Send the transcript of what the caller said."""
        if item.data["content"]:
            item.data["content"][0]["transcript"] = transcript
        if self.config.transcription is None or self.closed:
            return
        kind = "conversation.item.input_audio_transcription"
        words = transcript.split(" ") if transcript else []
        for index, word in enumerate(words):
            delta = word if index == len(words) - 1 else word + " "
            self.outlet.emit(f"{kind}.delta", item_id=item.id, content_index=0, delta=delta)
        audio = round(item.audio_ms / 100)
        text = text_tokens(transcript)
        usage = {
            "type": "tokens",
            "total_tokens": audio + text,
            "input_tokens": audio,
            "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
            "output_tokens": text,
        }
        self.outlet.emit(
            f"{kind}.completed", item_id=item.id, content_index=0, transcript=transcript, usage=usage
        )

    def transcription_failed(self, item: Turn, message: str) -> None:
        """Tell the client that no transcript will come."""
        self.outlet.emit(
            "conversation.item.input_audio_transcription.failed",
            item_id=item.id,
            content_index=0,
            error={"type": "transcription_error", "code": "audio_unintelligible", "message": message},
        )

    def send_rate_limits(self, remaining: int = _TOKENS_PER_MINUTE) -> None:
        """Send ``rate_limits.updated``."""
        used = _TOKENS_PER_MINUTE - remaining
        limits = {
            "name": "tokens",
            "limit": _TOKENS_PER_MINUTE,
            "remaining": remaining,
            "reset_seconds": round(used * 60 / _TOKENS_PER_MINUTE, 3),
        }
        self.outlet.emit("rate_limits.updated", rate_limits=[limits])

    # Client events.

    def _decode_beta(self, data: bytes) -> AnyClientEvent:
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            event = None
        if not isinstance(event, dict) or event.get("type") == "input_audio_buffer.append":
            return messages.decode(data)
        try:
            dialect.translate(event)
        except RequestError as exc:
            exc.event_id = event.get("event_id")
            raise
        return messages.decode(msgspec.json.encode(event))

    def _handle(self, event: AnyClientEvent, now: float) -> None:
        match event:
            case messages.SessionUpdate(session=session):
                self.config.update(session, voice_frozen=self._voice_frozen)
                self._hearing.configure(self._detection(), self.config.input_format)
                self.outlet.emit("session.updated", session=self.config.as_dict())
            case messages.InputAudioCommit():
                self._commit_by_client(now)
            case messages.InputAudioClear():
                self._hearing.clear()
                self.outlet.emit("input_audio_buffer.cleared")
            case messages.ItemCreate(item=data, previous_item_id=previous):
                item = self.conversation.create(data, self.outlet.new_id("item"), previous)
                self._announce(item)
            case messages.ItemRetrieve(item_id=item_id):
                item = self.conversation.find(item_id, "retrieve")
                self.outlet.emit("conversation.item.retrieved", item=self.conversation.with_audio(item))
            case messages.ItemTruncate(item_id=item_id, content_index=index, audio_end_ms=end_ms):
                self.conversation.truncate(item_id, index, end_ms, now)
                self.outlet.emit(
                    "conversation.item.truncated", item_id=item_id, content_index=index, audio_end_ms=end_ms
                )
            case messages.ItemDelete(item_id=item_id):
                self.conversation.delete(item_id)
                self.outlet.emit("conversation.item.deleted", item_id=item_id)
            case messages.ResponseCreate(response=params):
                if self.behaviour.answers:
                    self.behaviour.wanted(self.create_response(params, by_client=True), now)
            case messages.ResponseCancel(response_id=response_id):
                self._cancel(response_id, now)
            case _:
                raise RequestError(
                    "invalid_value",
                    "output_audio_buffer.clear is available over WebRTC and SIP only.",
                    param="type",
                )

    def _cancel(self, response_id: str | None, now: float) -> None:
        running = [self.active] if self.active is not None else []
        for response in [*running, *self._others]:
            if response_id is None or response.id == response_id:
                response.cancel("client_cancelled", now)
                return
        raise RequestError("response_cancel_not_active", "Cancellation failed: no active response found")

    def _announce(self, item: Item) -> None:
        previous = self.conversation.before(item)
        self.outlet.emit("conversation.item.added", item=item.data, previous_item_id=previous)
        self.outlet.emit("conversation.item.done", item=item.data, previous_item_id=previous)

    # Caller's audio.

    def _detection(self) -> Detection | None:
        found = self.config.turn_detection
        if found is None:
            return None
        if isinstance(found, SemanticVad):
            return Detection(silence_duration_ms=_SEMANTIC_SILENCE_MS[found.eagerness])
        return Detection(found.threshold, found.prefix_padding_ms, found.silence_duration_ms)

    def _append(self, audio: bytes, now: float) -> None:
        if self.record.keep_audio:
            self.record.audio_received += audio
        events = self._hearing.append(audio)
        self.behaviour.audio(audio, now)
        for event in events:
            if isinstance(event, SpeechStarted):
                self.speech_started(now, event.start_ms)
            else:
                self.speech_stopped(now, event.end_ms)

    def _commit_by_client(self, now: float) -> None:
        have = self._hearing.buffered_ms
        if have < _MIN_COMMIT_MS:
            raise RequestError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{_MIN_COMMIT_MS}ms of audio, but buffer only has {have:.2f}ms of audio.",
            )
        turn, self._turn = self._turn, None
        self._commit(turn or self.outlet.new_id("item"), self._hearing.take(), now)

    def _commit(self, item_id: str, audio: bytes, now: float) -> Item:
        previous = self.conversation.last_id
        content = [{"type": "input_audio", "transcript": None}]
        item = Item(
            {
                "id": item_id,
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": content,
            },
            bytearray(audio),
            self.config.input_format,
        )
        self.conversation.items.append(item)
        self.outlet.emit("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        self._announce(item)
        self.behaviour.heard(item, now)
        return item

    # Responses.

    def _shape(self, params: ResponseParams, *, by_client: bool) -> Shape:
        config = self.config
        output = params.audio.output if params.audio is not None else None
        wire_format = config.as_dict()["audio"]["output"]["format"]
        voice = config.voice
        if isinstance(output, messages.ResponseOutput):
            if isinstance(output.format, dict):
                known = messages.convert(output.format, Pcm24 | Pcmu | Pcma, ".response.audio.output.format")  # type: ignore[arg-type]
                wire_format = msgspec.to_builtins(known)
            if not isinstance(output.voice, msgspec.UnsetType):
                voice = output.voice
                if self._voice_frozen and voice != config.voice:
                    raise RequestError(
                        "cannot_update_voice",
                        "Cannot update a conversation's voice if assistant audio is present.",
                        param="response.audio.output.voice",
                    )
        for index, given in enumerate(params.input or ()):
            if given.get("type") == "item_reference":
                self._referenced(str(given.get("id")), index)
        return Shape(
            modalities=list(params.output_modalities or config.modalities),
            audio_format=FORMATS[wire_format["type"]],
            wire_format=wire_format,
            voice=voice if isinstance(voice, str) else str(voice.get("id")),
            instructions=params.instructions,
            tools=config.tools if params.tools is None else params.tools,
            max_output_tokens=params.max_output_tokens or config.max_output_tokens,
            metadata=params.metadata,
            input=params.input,
            by_client=by_client,
        )

    def _referenced(self, item_id: str, index: int) -> None:
        if not any(item.id == item_id for item in self.conversation.items):
            raise RequestError(
                "invalid_value",
                f"The item with id '{item_id}' does not exist.",
                param=f"response.input[{index}].id",
            )

    def _response_done(self, response: Response, now: float) -> dict[str, Any]:
        if any(item.audio for item in response.items):
            self._voice_frozen = True
        if response is self.active:
            self.active = None
            self._start_idle(response, now)
        else:
            self._others.remove(response)
        prompt = (response.shape.instructions or self.config.instructions) + str(response.shape.tools)
        context = [item for item in self.conversation.items if item not in response.items]
        usage = self._meter.measure(prompt, context, response.items)
        if self.options.rate_limits:
            left = max(_TOKENS_PER_MINUTE - usage["total_tokens"], 0)
            self.timers.at(now + _RATE_LIMITS_DELAY_S, lambda _: self.send_rate_limits(left))
        return usage

    # Time.

    def _expire(self, now: float) -> None:
        del now
        text = f"Your session hit the maximum duration of {self.options.expires_after / 60:g} minutes."
        self.error(RequestError("session_expired", text))
        self.close(1001, text)

    def _start_idle(self, response: Response, now: float) -> None:
        detection = self.config.turn_detection
        idle_ms = getattr(detection, "idle_timeout_ms", None)
        if idle_ms is None or not self._hearing.finds_turns:
            return
        playing_s = sum(item.audio_ms for item in response.items) / 1000
        self._idle = self.timers.at(now + playing_s + idle_ms / 1000, self._idle_over)

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idle_over(self, now: float) -> None:
        self._idle = None
        if self.active is not None or self._turn is not None:
            return
        end_ms = int(self.received_ms)
        item_id = self.outlet.new_id("item")
        self.outlet.emit(
            "input_audio_buffer.timeout_triggered",
            audio_start_ms=self._hearing.begins_ms,
            audio_end_ms=end_ms,
            item_id=item_id,
        )
        self._commit(item_id, self._hearing.take(), now)
        self.behaviour.wanted(self.create_response(), now)


def _kind_of(data: bytes) -> str:
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    kind = event.get("type") if isinstance(event, dict) else None
    return kind if isinstance(kind, str) else ""
