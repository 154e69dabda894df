"""The wire protocol of OpenAI Realtime: messages built and parsed. Pure.

GA dialect, and the ``beta`` dialect that some compatible servers still speak. Reading accepts the event names
of both at once; writing follows the chosen one.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from arivox.errors import ProtocolError, ProviderError
from arivox.providers.base import Brief, Tool, Utterance
from arivox.providers.refusal import LASTING, PASSING, retry_after_s

Dialect = Literal["ga", "beta"]
PROVIDER: Final = "openai"

_APPEND_HEAD: Final = b'{"type":"input_audio_buffer.append","audio":"'
_APPEND_TAIL: Final = b'"}'

# Ends the session, or makes it useless; every other error leaves it open (reference: errors).
_OVER: Final = frozenset({"session_expired", "session_limit_reached"})  # another may do
_FATAL: Final = LASTING | _OVER | {"beta_api_shape_disabled"}
ALREADY_ANSWERING: Final = "conversation_already_has_active_response"
NOT_ANSWERING: Final = "response_cancel_not_active"
# An answer that is withheld for what is in it.
_WITHHELD: Final = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
# Races between what we send and what the server does at the same time.
_BENIGN: Final = frozenset(
    {
        ALREADY_ANSWERING,
        "input_audio_buffer_commit_empty",
        "item_truncate_invalid_item_id",
        NOT_ANSWERING,
    }
)


# --- what we send ---


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is configured with, apart from its brief."""

    audio: Literal["ulaw", "alaw", "pcm"]
    voice: str = "marin"
    speed: float = 1.0
    vad: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: str = "auto"
    transcription_model: str = ""
    language: str = ""
    noise_reduction: str = ""
    reasoning_effort: str = ""


def url_with_model(url: str, model: str) -> str:
    """Return ``url`` with ``model`` in its query, unless it names one already."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if any(name == "model" for name, _ in query):
        return url
    return urlunsplit(parts._replace(query=urlencode([*query, ("model", model)])))


def headers(api_key: str, dialect: Dialect) -> dict[str, str]:
    """Return the headers of the handshake."""
    result = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    if dialect == "beta":
        result["OpenAI-Beta"] = "realtime=v1"
    return result


def append(audio: bytes) -> bytes:
    """Return ``input_audio_buffer.append``. Joined by hand: this is sent fifty times a second."""
    return _APPEND_HEAD + b64encode(audio) + _APPEND_TAIL


def audio_commit() -> bytes:
    """Return ``input_audio_buffer.commit``: what was appended is the caller's turn."""
    return _encode({"type": "input_audio_buffer.commit"})


def session_update(options: SessionOptions, brief: Brief, dialect: Dialect, event_id: str) -> bytes:
    """Return the first ``session.update``: everything."""
    session = (_ga_session if dialect == "ga" else _beta_session)(options, brief)
    return _encode({"type": "session.update", "event_id": event_id, "session": session})


def brief_update(brief: Brief, dialect: Dialect) -> bytes:
    """Return a ``session.update`` of instructions and tools only."""
    session = _brief(brief)
    if dialect == "ga":
        session["type"] = "realtime"
    return _encode({"type": "session.update", "session": session})


def response_create(instructions: str | None = None, event_id: str | None = None) -> bytes:
    """Return ``response.create``. ``event_id`` comes back in the error if it is refused."""
    message: dict[str, Any] = {"type": "response.create"}
    if event_id is not None:
        message["event_id"] = event_id
    if instructions is not None:
        message["response"] = {"instructions": instructions}
    return _encode(message)


def response_cancel() -> bytes:
    """Return ``response.cancel`` of whatever is in progress."""
    return _encode({"type": "response.cancel"})


def item_truncate(item_id: str, audio_end_ms: int) -> bytes:
    """Return ``conversation.item.truncate``: the caller heard ``audio_end_ms`` of the item."""
    return _encode(
        {
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "content_index": 0,
            "audio_end_ms": audio_end_ms,
        }
    )


def item_delete(item_id: str) -> bytes:
    """Return ``conversation.item.delete``: the caller heard nothing of the item."""
    return _encode({"type": "conversation.item.delete", "item_id": item_id})


def function_call_output(call_id: str, output: str) -> bytes:
    """Return the result of a tool as a conversation item."""
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return _encode({"type": "conversation.item.create", "item": item})


def history_item(said: Utterance, dialect: Dialect) -> bytes:
    """Return something said before this session as a conversation item."""
    caller = said.speaker == "caller"
    kind = "input_text" if caller else "output_text" if dialect == "ga" else "text"
    item = {
        "type": "message",
        "role": "user" if caller else "assistant",
        "content": [{"type": kind, "text": said.text}],
    }
    return _encode({"type": "conversation.item.create", "item": item})


def _encode(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)


def _tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        for tool in tools
    ]


def _brief(brief: Brief) -> dict[str, Any]:
    return {
        "instructions": brief.instructions,
        "tools": _tools(brief.tools),
        "tool_choice": "auto",
    }


def _turn_detection(options: SessionOptions) -> dict[str, Any]:
    if options.vad == "semantic_vad":
        detection: dict[str, Any] = {"type": "semantic_vad", "eagerness": options.eagerness}
    else:
        detection = {
            "type": "server_vad",
            "threshold": options.threshold,
            "prefix_padding_ms": options.prefix_padding_ms,
            "silence_duration_ms": options.silence_duration_ms,
        }
    return {**detection, "create_response": True, "interrupt_response": True}


def _transcription(options: SessionOptions) -> dict[str, Any]:
    result = {"model": options.transcription_model}
    if options.language:
        result["language"] = options.language
    return result


_GA_FORMATS: Final[dict[str, dict[str, Any]]] = {
    "ulaw": {"type": "audio/pcmu"},
    "alaw": {"type": "audio/pcma"},
    "pcm": {"type": "audio/pcm", "rate": 24000},
}


def _ga_session(options: SessionOptions, brief: Brief) -> dict[str, Any]:
    audio_format = _GA_FORMATS[options.audio]
    hearing: dict[str, Any] = {"format": audio_format, "turn_detection": _turn_detection(options)}
    if options.transcription_model:
        hearing["transcription"] = _transcription(options)
    if options.noise_reduction:
        hearing["noise_reduction"] = {"type": options.noise_reduction}
    session: dict[str, Any] = {
        "type": "realtime",
        **_brief(brief),
        "output_modalities": ["audio"],
        "audio": {
            "input": hearing,
            "output": {"format": audio_format, "voice": options.voice, "speed": options.speed},
        },
    }
    if options.reasoning_effort:
        session["reasoning"] = {"effort": options.reasoning_effort}
    return session


def _beta_session(options: SessionOptions, brief: Brief) -> dict[str, Any]:
    audio_format = {"ulaw": "g711_ulaw", "alaw": "g711_alaw", "pcm": "pcm16"}[options.audio]
    session = {
        **_brief(brief),
        "modalities": ["text", "audio"],
        "voice": options.voice,
        "input_audio_format": audio_format,
        "output_audio_format": audio_format,
        "turn_detection": _turn_detection(options),
        "speed": options.speed,
    }
    if options.noise_reduction:
        session["input_audio_noise_reduction"] = {"type": options.noise_reduction}
    if options.transcription_model:
        session["input_audio_transcription"] = _transcription(options)
    return session


# --- what we are sent ---


# Servers built on the SDK's types write null for what they do not know: every optional field may be null.


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of an error."""

    type: str | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None

    def as_provider_error(self) -> ProviderError:
        """Return it as our exception, told apart as fatal or not; lost where another session may do."""
        code = self.code or self.type or ""
        if code not in PASSING and code not in _FATAL and self.type in PASSING:
            code = self.type or ""  # any trouble of the server's own
        fatal = code in _FATAL or self.type in _FATAL or self.type == "authentication_error"
        message = self.message or "an error without text"
        wait = retry_after_s(message)
        if self.param:
            message += f" ({self.param})"
        return ProviderError(
            PROVIDER,
            message,
            code=code,
            fatal=fatal,
            lost=code in _OVER,
            retry_after_s=wait,
            rejected=code in _WITHHELD or self.type in _WITHHELD,
        )

    @property
    def benign(self) -> bool:
        """Return whether the error is only a race that needs no action."""
        return self.code in _BENIGN or "already shorter than" in (self.message or "")


class AudioDelta(msgspec.Struct, frozen=True):
    """``response.output_audio.delta``; the audio is decoded from base64 with the JSON."""

    item_id: str
    delta: bytes
    response_id: str | None = None


class AudioDone(msgspec.Struct, frozen=True):
    """``response.output_audio.done``."""

    item_id: str


class Transcript(msgspec.Struct, frozen=True):
    """``response.output_audio_transcript.done``, or the caller's ``…transcription.completed``."""

    item_id: str
    transcript: str | None = None


class TranscriptDelta(msgspec.Struct, frozen=True):
    """``response.output_audio_transcript.delta``: the next words of an item."""

    item_id: str
    delta: str


class SpeechEdge(msgspec.Struct, frozen=True):
    """``input_audio_buffer.speech_started`` or ``speech_stopped``."""

    item_id: str | None = None


class Content(msgspec.Struct, frozen=True):
    """A part of a message."""

    type: str | None = None
    text: str | None = None


class Item(msgspec.Struct, frozen=True):
    """A conversation item, as far as it matters: function calls, and text where speech should be."""

    id: str | None = None
    type: str | None = None
    content: list[Content] | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    status: str | None = None

    @property
    def written(self) -> str:
        """Return the text of a message that is not spoken."""
        parts = (self.content or ()) if self.type == "message" else ()
        return " ".join(part.text for part in parts if part.text and part.type in ("output_text", "text"))


class OutputItem(msgspec.Struct, frozen=True):
    """``response.output_item.done``."""

    item: Item
    response_id: str | None = None


class Written(msgspec.Struct, frozen=True):
    """``response.output_text.done``: an answer in text, which nobody hears."""

    item_id: str
    text: str | None = None
    response_id: str | None = None


class StatusDetails(msgspec.Struct, frozen=True):
    """Why a response ended."""

    error: ErrorBody | None = None
    reason: str | None = None


class Response(msgspec.Struct, frozen=True):
    """A response, as ``response.created`` and ``response.done`` carry it."""

    id: str | None = None
    status: str | None = None
    status_details: StatusDetails | None = None
    usage: dict[str, Any] | None = None


class ResponseMessage(msgspec.Struct, frozen=True):
    """``response.created`` or ``response.done``."""

    response: Response


class ErrorMessage(msgspec.Struct, frozen=True):
    """``error``."""

    error: ErrorBody


class TranscriptionFailed(msgspec.Struct, frozen=True):
    """``conversation.item.input_audio_transcription.failed``."""

    item_id: str
    error: ErrorBody


class SessionMessage(msgspec.Struct, frozen=True):
    """``session.created`` or ``session.updated``."""

    session: dict[str, Any]


class _Type(msgspec.Struct, frozen=True):
    type: str


_KINDS: Final[dict[str, Any]] = {
    "error": ErrorMessage,
    "session.created": SessionMessage,
    "session.updated": SessionMessage,
    "input_audio_buffer.speech_started": SpeechEdge,
    "input_audio_buffer.speech_stopped": SpeechEdge,
    "conversation.item.input_audio_transcription.completed": Transcript,
    "conversation.item.input_audio_transcription.failed": TranscriptionFailed,
    "response.created": ResponseMessage,
    "response.done": ResponseMessage,
    "response.output_item.done": OutputItem,
    "response.output_audio.delta": AudioDelta,
    "response.output_audio.done": AudioDone,
    "response.output_audio_transcript.delta": TranscriptDelta,
    "response.output_audio_transcript.done": Transcript,
    "response.output_text.done": Written,
}
_BETA_NAMES: Final = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.done": "response.output_text.done",
}
_DECODERS: Final = {
    name: msgspec.json.Decoder(kind)
    for name, kind in (_KINDS | {beta: _KINDS[ga] for beta, ga in _BETA_NAMES.items()}).items()
}
_TYPE_DECODER: Final = msgspec.json.Decoder(_Type)


def parse(data: bytes | memoryview) -> tuple[str, Any]:
    """Return the GA name of a server event and its message; the message is None for events without use here.

    Raises ProtocolError when it is not an event, or an event that we need lacks what makes it one.
    """
    try:
        name = _TYPE_DECODER.decode(data).type
        decoder = _DECODERS.get(name)
        message = decoder.decode(data) if decoder is not None else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("OpenAI Realtime", f"an event that cannot be read: {error}") from error
    return _BETA_NAMES.get(name, name), message


def add_usage(total: dict[str, int], usage: dict[str, Any], prefix: str = "") -> None:
    """Add the numbers of a ``usage`` object to ``total``, nested names joined by dots."""
    for name, value in usage.items():
        if isinstance(value, dict):
            add_usage(total, value, f"{prefix}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            total[prefix + name] = total.get(prefix + name, 0) + value
