"""A session with OpenAI Realtime: joins the socket to the protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, cast

import structlog

from arivox.audio.format import AudioFormat
from arivox.errors import ProtocolError, ProviderError
from arivox.logs import FROM_PROVIDER
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    AlreadyAnswering,
    Brief,
    CallerText,
    Capabilities,
    Fault,
    OnProviderEvent,
    ResponseDone,
    ResponseStarted,
    SessionCounters,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from arivox.providers.openai import protocol
from arivox.providers.openai.configuration import Configuration
from arivox.providers.openai.protocol import PROVIDER, SessionOptions
from arivox.providers.opening import Connection, expiry
from arivox.providers.transcoder import Transcoder
from arivox.settings.settings import Settings

log = structlog.get_logger()

_CONFIGURE: Final = "configure"
_PCM_RATE: Final = 24000


def session_options(settings: Settings, audio: AudioFormat) -> SessionOptions:
    """Return the configuration of a session for a call whose media link speaks ``audio``."""
    wire = audio.law if settings.openai_audio_format == "auto" else None
    transcription, noise = settings.openai_transcription_model, settings.openai_noise_reduction
    return SessionOptions(
        audio=cast(Literal["ulaw", "alaw", "pcm"], wire or "pcm"),
        voice=settings.openai_voice_id,
        speed=settings.openai_speed,
        vad=settings.vad_type,
        threshold=settings.vad_threshold,
        prefix_padding_ms=settings.vad_prefix_padding_ms,
        silence_duration_ms=settings.vad_silence_duration_ms,
        eagerness=settings.vad_eagerness,
        transcription_model="" if transcription == "none" else transcription,
        language=settings.openai_language,
        noise_reduction="" if noise == "none" else noise,
        reasoning_effort=settings.openai_reasoning_effort,
    )


class OpenAISession:
    """One conversation with OpenAI Realtime, or a server that speaks its protocol.

    See ``providers.base.ProviderSession`` for the verbs.
    """

    name = PROVIDER
    capabilities = Capabilities(
        turns=True,
        truncate=True,
        cancel=True,
        update="session",
        update_tools=True,
        resume=False,
        full_duplex=False,
    )

    def __init__(self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent) -> None:
        self.counters = SessionCounters()
        self._audio = audio
        self._configuration = Configuration(session_options(settings, audio))
        self._transcoder = (
            Transcoder(audio, up=_PCM_RATE, down=_PCM_RATE)
            if self._configuration.options.audio == "pcm"
            else None
        )
        self._dialect = settings.openai_dialect
        self._url = protocol.url_with_model(settings.openai_realtime_url, settings.openai_model)
        self._headers = protocol.headers(settings.openai_api_key, self._dialect)
        self._timeout_s = settings.provider_connect_timeout_s
        self._on_event = on_event
        self._debug = settings.log_level == "debug"
        self._connection = Connection(
            PROVIDER, self.counters, self._message, self._gone, self._encode_audio, debug=self._debug
        )
        self._response: str | None = None  # id of the answer in progress
        self._asks = 0
        self._last_ask: tuple[str, str | None] = ("", None)  # its event id and instructions
        self._asking = False  # the last ask has neither begun nor been refused
        self._dead: deque[str] = deque(maxlen=16)  # answers that were interrupted: their audio is late
        self._spoken: deque[str] = deque(maxlen=16)  # the latest items that audio came for
        self._asked: deque[str | None] = deque()  # answers to ask for once the present one is done
        self._open_tools: set[str] = set()
        self._words: dict[str, str] = {}  # of items whose text is not complete
        self._end_told = False
        self._answer_tools = False
        self._calls: list[ToolCall] = []  # of the answer in progress
        self._withheld: set[str] = set()  # text answers that were taken out of the conversation
        self._speaking = False  # the caller, as far as the service tells
        self._brief = Brief("")
        self._reconfiguring = False  # the configuration was refused, and another sent
        self._untold: set[str] = set()  # answers that began meanwhile

    def __repr__(self) -> str:
        connection = self._connection
        state = "ready" if connection.ready else "over" if connection.over else "connecting"
        return f"<OpenAISession {state} {self._configuration.options.audio}>"

    @property
    def busy(self) -> bool:
        """Return whether an answer is in progress, or asked for and not begun."""
        return bool(self._response is not None or self._asking or self._asked or self._answer_tools)

    # --- verbs ---

    async def connect(self, brief: Brief) -> None:
        """Open and configure the session, trying again while time allows. Raises ProviderError."""
        self._brief = brief
        configure = self._configure()
        history = [protocol.history_item(said, self._dialect) for said in brief.history]
        await self._connection.open(
            self._url, self._headers, self._timeout_s, first=[configure, *history], again=brief.begun
        )
        self._ask_next()

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        """Send the caller's audio; before the session is ready, keep the last five seconds of it."""
        self._connection.send_audio(data, keep=keep)

    def speak(self, instructions: str | None = None) -> None:
        """Ask for an answer now, or after the one in progress."""
        if instructions not in self._asked:
            self._asked.append(instructions)
        self._ask_next()

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Drop late audio of the answer in progress, and tell the server what was heard of each item."""
        if self._response is not None:
            if self._response:
                self._dead.append(self._response)
            if cancel:
                self._send(protocol.response_cancel())
        if cancel:
            # One that was asked for and never began is not waited for any more.
            self._asking = self._answer_tools = False
        else:
            # The caller's turn brings an answer of its own; another would talk over them.
            self._answer_tools = False
        self._asked = deque(asked for asked in self._asked if asked is not None)
        if self._transcoder is not None:
            self._transcoder.restart()
        for cut in cuts:
            if cut.heard_ms > 0:
                self._send(protocol.item_truncate(cut.item_id, cut.heard_ms))
            else:
                self._send(protocol.item_delete(cut.item_id))

    def update(self, brief: Brief) -> None:
        """Change instructions and tools."""
        self._brief = brief
        self._send(protocol.brief_update(brief, self._dialect))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give a tool's result; the agent speaks on when all results of its answer are in.

        While the caller speaks nothing is asked for: their turn brings the answer.
        """
        self._open_tools.discard(call_id)
        self._answer_tools = self._answer_tools or (answer and not self._speaking)
        self._send(protocol.function_call_output(call_id, output))
        self._answer_after_tools()

    def end_turn(self) -> None:
        """Take the caller's turn for ended. To commit it brings no answer: it is asked for."""
        self._speaking = False
        self._send(protocol.audio_commit())
        self.speak()

    def renew(self, cause: str) -> None:
        """Do nothing: another session takes this one's place."""

    async def close(self) -> None:
        """Close the socket."""
        await self._connection.close()

    # --- inside ---

    def _encode_audio(self, data: bytes) -> bytes:
        return protocol.append(data if self._transcoder is None else self._transcoder.to_provider(data))

    def _send(self, message: bytes) -> None:
        self._connection.send(message)

    def _configure(self) -> bytes:
        return protocol.session_update(self._configuration.options, self._brief, self._dialect, _CONFIGURE)

    def _ask_next(self) -> None:
        # Only one answer at a time may be in progress.
        free = self._response is None and not self._asking and not self._reconfiguring
        if self._asked and self._connection.ready and free:
            self._asks += 1
            self._last_ask = (f"ask-{self._asks}", self._asked.popleft())
            self._asking = True
            self._send(protocol.response_create(self._last_ask[1], self._last_ask[0]))

    def _answer_after_tools(self) -> None:
        if self._answer_tools and not self._open_tools and self._response is None:
            self._answer_tools = False
            self.speak()

    def _message(self, data: bytes | memoryview) -> None:
        try:
            name, message = protocol.parse(data)
        except ProtocolError as error:
            self.counters.messages_in += 1
            log.warning("a message of the AI is ignored", origin=FROM_PROVIDER, error=str(error))
            return
        self.counters.messages_in += not name.startswith(_NO_SIGN)
        if self._debug:
            log.debug("received", origin=FROM_PROVIDER, message=bytes(data[:500]).decode(errors="replace"))
        if self._connection.opening:
            # A refused key or model arrives as an error event after a good handshake.
            if name == "error":
                self._connection.refuse(message.error.as_provider_error())
            else:
                self._connection.accept()
            return
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, message)

    def _gone(self, error: ProviderError) -> None:
        if not self._connection.over:
            self._connection.end()
            for item_id, text in self._words.items():
                self._on_event(AgentText(item_id, text))  # more of it will not come
            self._words.clear()
            self._on_event(Fault(error))

    # --- server events ---

    def _on_session(self, message: protocol.SessionMessage) -> None:
        expires = expiry(message.session.get("expires_at"))
        if expires is not None and not self._end_told:
            self._end_told = True
            self._on_event(expires)
        self._configured()

    def _on_audio(self, message: protocol.AudioDelta) -> None:
        if message.response_id in self._dead:
            # Counted in the provider's own format: it must not pass the converter and touch its state.
            per_second = self._audio.rate if self._transcoder is None else 2 * _PCM_RATE
            self.counters.late_audio_ms += len(message.delta) * 1000 / per_second
            if message.item_id not in self._spoken:
                # It was interrupted before its first sound: nobody has heard of it.
                self._spoken.append(message.item_id)
                self._send(protocol.item_delete(message.item_id))
            return
        if message.item_id not in self._spoken:
            self._spoken.append(message.item_id)
        data = message.delta if self._transcoder is None else self._transcoder.to_link(message.delta)
        self.counters.audio_in_ms += self._audio.ms(len(data))
        self._on_event(AgentAudio(message.item_id, data))

    def _on_audio_done(self, message: protocol.AudioDone) -> None:
        if self._transcoder is not None:
            self._transcoder.restart()
        self._on_event(AgentAudioDone(message.item_id))

    def _on_agent_words(self, message: protocol.TranscriptDelta) -> None:
        self._words[message.item_id] = self._words.get(message.item_id, "") + message.delta

    def _on_agent_text(self, message: protocol.Transcript) -> None:
        self._words.pop(message.item_id, None)
        self._on_event(AgentText(message.item_id, message.transcript or ""))

    def _on_caller_text(self, message: protocol.Transcript) -> None:
        self._on_event(CallerText(message.item_id, (message.transcript or "").strip()))

    def _on_transcription_failed(self, message: protocol.TranscriptionFailed) -> None:
        log.warning(
            "the caller's words were not transcribed", origin=FROM_PROVIDER, error=message.error.message
        )
        self._on_event(CallerText(message.item_id, ""))

    def _on_speech_started(self, message: protocol.SpeechEdge) -> None:
        self._speaking = True
        self._on_event(SpeechStarted(message.item_id or ""))

    def _on_speech_stopped(self, message: protocol.SpeechEdge) -> None:
        self._speaking = False
        self._on_event(SpeechStopped(message.item_id or ""))

    def _on_response_created(self, message: protocol.ResponseMessage) -> None:
        self._response = message.response.id or ""
        self._asking = False
        self._calls.clear()
        if self._reconfiguring:
            # In whatever format the service thinks of: it would be noise.
            self._dead.append(self._response)
            self._untold.add(self._response)
            self._send(protocol.response_cancel())
        else:
            self._on_event(ResponseStarted())

    def _on_output_item(self, message: protocol.OutputItem) -> None:
        item = message.item
        if item.type == "function_call" and item.call_id:
            if item.status != "incomplete":
                # Run once the answer is complete: one that is cut off has not asked for anything.
                self._calls.append(ToolCall(item.call_id, item.name or "", item.arguments or "{}"))
        elif item.written and item.id:
            self._withhold(item.id, item.written)

    def _on_text(self, message: protocol.Written) -> None:
        self._withhold(message.item_id, message.text or "")

    def _withhold(self, item_id: str, text: str) -> None:
        """Take an answer in text out of the conversation: others would follow its example."""
        if item_id not in self._withheld:
            self._withheld.add(item_id)
            log.warning("the AI wrote its answer instead of speaking", origin=FROM_PROVIDER, text=text[:200])
            self._send(protocol.item_delete(item_id))

    def _on_response_done(self, message: protocol.ResponseMessage) -> None:
        response = message.response
        status = response.status if response.status in _STATUSES else "completed"
        # One whose beginning was not told, or not by name, is the present one as well.
        present = self._response in (None, "", response.id) or not response.id
        calls, self._calls = (self._calls, []) if present else ([], self._calls)
        if response.usage:
            protocol.add_usage(self.counters.usage, response.usage)
        details = response.status_details
        error = details.error.as_provider_error() if details is not None and details.error else None
        if error is None and status in ("failed", "incomplete"):
            reason = (details.reason if details is not None else None) or "without a reason"
            error = ProviderError(
                PROVIDER,
                f"the answer {'failed' if status == 'failed' else 'broke off'}: {reason.replace('_', ' ')}",
                code=reason if reason == _FILTERED else "",
                fatal=False,
                rejected=reason == _FILTERED,
            )
        told = response.id not in self._untold
        if present and told and status in ("completed", "incomplete"):
            self._open_tools.update(call.call_id for call in calls)
            for call in calls:
                self._on_event(call)
        if present:
            self._response = None
            self._words.clear()
        if error is not None and error.lost:
            self._gone(error)  # not the answer alone has failed
            return
        if told:
            self._on_event(ResponseDone(cast(Any, status), error))
        self._answer_after_tools()
        self._ask_next()

    def _on_error(self, message: protocol.ErrorMessage) -> None:
        body = message.error
        error = body.as_provider_error()
        if body.event_id == _CONFIGURE:
            if self._configure_again(body, error):
                return
            # Without its configuration the session would send another audio format: loud noise.
            error.fatal = True
        elif body.benign:
            if body.code == protocol.ALREADY_ANSWERING:
                self._ask_collided(body.event_id)
            elif body.code == protocol.NOT_ANSWERING:
                self._answer_is_over()
            log.debug("a harmless race with the AI", origin=FROM_PROVIDER, error=str(error))
            return
        elif body.event_id is not None and body.event_id == self._last_ask[0] and self._asking:
            # What was asked for will not come: it is an answer that failed.
            self._asking = False
            if not error.fatal:
                self._on_event(ResponseDone("failed", error))
                return
        if error.lost:
            self._gone(error)
        else:
            self._on_event(Fault(error))

    def _configure_again(self, body: protocol.ErrorBody, error: ProviderError) -> bool:
        """Configure the session without what the service refuses. Return False when it cannot do without."""
        parts = self._configuration.refused(body)
        if not parts:
            return False
        names = ", ".join(part.setting for part in parts)
        text = f"it goes without {names}, which it refuses: {error.message}"
        self._on_event(Fault(ProviderError(PROVIDER, text, code=error.code, fatal=False)))
        self.counters.left_out += len(parts)
        if self._asking:
            self._asking = False
            self._asked.appendleft(self._last_ask[1])
        self._reconfiguring = True
        self._send(self._configure())
        return True

    def _configured(self) -> None:
        """Hear that the service has taken the configuration."""
        if self._reconfiguring:
            self._reconfiguring = False
            self._ask_next()

    def _answer_is_over(self) -> None:
        """The answer that we broke off was over already: its end was never told."""
        if self._response is not None:
            self._response = None
            self._calls.clear()
            self._words.clear()
            self._on_event(ResponseDone("cancelled"))
            self._answer_after_tools()
            self._ask_next()

    def _ask_collided(self, event_id: str | None) -> None:
        """The server began an answer by itself at the same moment as we asked for one.

        A plain answer was all we wanted; what we want said is asked for again after it.
        """
        asked, instructions = self._last_ask
        if event_id is not None and event_id != asked:
            return
        self._asking = False
        if instructions is not None:
            self._asked.appendleft(instructions)
        if self._response is None:
            # It has not said so yet.
            self._response = ""
            self._on_event(AlreadyAnswering())


_NO_SIGN: Final = ("conversation.item.input_audio_transcription.", "rate_limits.")  # of an answer
_FILTERED: Final = "content_filter"
_STATUSES: Final = frozenset({"completed", "cancelled", "failed", "incomplete"})
_HANDLERS: Final[dict[str, Any]] = {
    "error": OpenAISession._on_error,
    "session.updated": OpenAISession._on_session,
    "input_audio_buffer.speech_started": OpenAISession._on_speech_started,
    "input_audio_buffer.speech_stopped": OpenAISession._on_speech_stopped,
    "conversation.item.input_audio_transcription.completed": OpenAISession._on_caller_text,
    "conversation.item.input_audio_transcription.failed": OpenAISession._on_transcription_failed,
    "response.created": OpenAISession._on_response_created,
    "response.done": OpenAISession._on_response_done,
    "response.output_item.done": OpenAISession._on_output_item,
    "response.output_audio.delta": OpenAISession._on_audio,
    "response.output_audio.done": OpenAISession._on_audio_done,
    "response.output_audio_transcript.delta": OpenAISession._on_agent_words,
    "response.output_audio_transcript.done": OpenAISession._on_agent_text,
    "response.output_text.done": OpenAISession._on_text,
}
