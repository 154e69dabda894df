"""The wire protocol of OpenAI Live (``gpt-live-1.1``): messages built and parsed. Pure.

A dialect of its own: full duplex, without turns, answers or items. What a backend model does for the agent
(tasks, tools) comes as a stream inside the stream; its events are told here under ``response.event/<type>``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from arivox.errors import ProtocolError, ProviderError
from arivox.providers.base import Brief, Tool, Utterance
from arivox.providers.openai_live.errors import PROVIDER, Error, ErrorMessage

MAX_INSTRUCTIONS: Final = 16_384
"""Tokens."""
NESTED: Final = "response.event/"

_MAX_HISTORY_MESSAGES: Final = 128
_MAX_HISTORY: Final = 8_192
_MAX_APPEND: Final = 500
# Tokens are only estimated here, and what is one too many is refused whole: a fifth stays free.
_SURE: Final = 0.8
_MESSAGE_TOKENS: Final = 8  # what a message of the history costs beside its text
_BYTES_A_TOKEN: Final = 4
_SENTENCE_END: Final = re.compile(r"[.!?…][\"')\]»“”]*\s|[。！？]|\n")

_AUDIO_HEAD: Final = b'{"type":"session.input_audio.append","audio":"'
_AUDIO_TAIL: Final = b'"}'
_FORMATS: Final = {"ulaw": "audio/pcmu", "alaw": "audio/pcma"}


# --- what we send ---


def session_start(
    model: str, law: str, voice: str, backend_model: str, brief: Brief, *, history: float = 1.0
) -> bytes:
    """Return ``session.start``: all that a session is made of. Most of it cannot be changed later.

    Without a ``voice`` the service chooses; ``history`` is the share of what it takes that is told.
    Raises ProviderError when the instructions are longer than the service takes.
    """
    if (size := tokens(brief.instructions)) > MAX_INSTRUCTIONS:
        raise ProviderError(
            PROVIDER,
            f"the instructions are too long: about {size} tokens, and {MAX_INSTRUCTIONS} are allowed",
            code="instructions_too_long",
        )
    audio: dict[str, Any] = {"format": {"type": _FORMATS[law], "rate": 8000}}
    if voice:
        audio["output"] = {"voice": voice}
    session: dict[str, Any] = {"model": model, "audio": audio}
    if brief.instructions.strip():
        session["instructions"] = brief.instructions
    if said := _history(brief.history, history):
        session["input"] = said
    if brief.tools:
        session["delegation"] = {"type": "responses", "responses": {"model": backend_model, **_task(brief)}}
    return _encode({"type": "session.start", "event_id": "start", "session": session})


def session_update(brief: Brief) -> bytes:
    """Return ``session.update`` of what the backend model is told and may do."""
    delegation = {"type": "responses", "responses": _task(brief)}
    return _encode({"type": "session.update", "session": {"delegation": delegation}})


def session_close() -> bytes:
    """Return ``session.close``."""
    return _encode({"type": "session.close"})


def audio_append(audio: bytes) -> bytes:
    """Return ``session.input_audio.append``. Joined by hand: this is sent fifty times a second."""
    return _AUDIO_HEAD + b64encode(audio) + _AUDIO_TAIL


# ``event_id`` comes back in the error if one of these is refused.


def instructions_append(content: str, event_id: str | None = None, delegation_id: str | None = None) -> bytes:
    """Return ``session.instructions.append``, by default to the conversation as a whole. See ``parts``."""
    fields = {"content": content, "delegation_id": delegation_id}
    return _encode({"type": "session.instructions.append", **_named(event_id), **fields})


def function_call_output(call_id: str, output: str, event_id: str | None = None) -> bytes:
    """Return the result of a tool for the backend model."""
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return _encode({"type": "response.item.create", **_named(event_id), "item": item})


def response_create(event_id: str | None = None) -> bytes:
    """Return ``response.create``: the backend model goes on with its task."""
    return _encode({"type": "response.create", **_named(event_id)})


def tokens(text: str) -> int:
    """Return about how many tokens ``text`` has."""
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def parts(text: str, most: int = int(_MAX_APPEND * _SURE) * _BYTES_A_TOKEN) -> list[str]:
    """Return ``text`` in pieces that may be appended, cut at the ends of sentences where there are any.

    ``most`` is the bytes of each; it is at least four, the longest character.
    """
    result = []
    rest = text.strip()
    while len(rest.encode()) > most:
        head = rest.encode()[:most].decode(errors="ignore")
        ends = [match.end() for match in _SENTENCE_END.finditer(head)]
        cut = ends[-1] if ends else head.rfind(" ") + 1 or len(head)
        result.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    if rest:
        result.append(rest)
    return result


def halves(text: str) -> list[str]:
    """Return ``text`` in pieces of about half of it; in one, when it is too short for that."""
    return parts(text, max(4, len(text.encode()) // 2 + 16))


def _encode(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)


def _named(event_id: str | None) -> dict[str, str]:
    return {} if event_id is None else {"event_id": event_id}


def _task(brief: Brief) -> dict[str, Any]:
    return {"instructions": brief.instructions, "tools": [_tool(tool) for tool in brief.tools]}


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        # Strict schemas have no optional parameters; those of our users may.
        "strict": False,
    }


def _history(history: Sequence[Utterance], share: float) -> list[dict[str, Any]]:
    """Return the newest part of what was said that the service takes, or the ``share`` of it."""
    room = int(_MAX_HISTORY * _SURE)
    messages: list[dict[str, Any]] = []
    for utterance in reversed(history):
        if not utterance.text.strip():
            continue
        room -= tokens(utterance.text) + _MESSAGE_TOKENS
        if room < 0 or len(messages) == _MAX_HISTORY_MESSAGES:
            break
        role, kind = ("user", "input_text") if utterance.speaker == "caller" else ("assistant", "output_text")
        content = [{"type": kind, "text": utterance.text}]
        messages.append({"type": "message", "role": role, "content": content})
    messages.reverse()
    return messages[len(messages) - int(len(messages) * share) :]


# --- what we are sent ---


# As in OpenAI Realtime, every field without which an event is still of use may be missing or null.


class Session(msgspec.Struct, frozen=True):
    """A session, as far as it matters."""

    id: str | None = None
    expires_at: float | None = None


class SessionStarted(msgspec.Struct, frozen=True):
    """``session.started``."""

    session: Session


class Usage(msgspec.Struct, frozen=True):
    """The audio of the session so far."""

    seconds: float | None = None


class Appended(msgspec.Struct, frozen=True):
    """``session.instructions.appended``: the model knows of it."""


class UsageUpdated(msgspec.Struct, frozen=True):
    """``session.usage.updated``."""

    usage: Usage


class SessionClosed(msgspec.Struct, frozen=True):
    """``session.closed``."""

    reason: str | None = None
    usage: Usage | None = None


class AudioDelta(msgspec.Struct, frozen=True):
    """``session.output_audio.delta``; the audio is decoded from base64 with the JSON."""

    delta: bytes


class TranscriptDelta(msgspec.Struct, frozen=True):
    """Some words of the agent's or the caller's, and where they stand on the session's timeline."""

    delta: str
    start_ms: int | None = None
    end_ms: int | None = None


class Delegation(msgspec.Struct, frozen=True):
    """A task that the agent has handed over: ``client`` is us."""

    id: str
    target: str | None = None


class DelegationCreated(msgspec.Struct, frozen=True):
    """``session.delegation.created``."""

    delegation: Delegation


class Item(msgspec.Struct, frozen=True):
    """An item of the backend model's, as far as it matters: function calls."""

    type: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: Any = None


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response of the backend model broke off."""

    reason: str | None = None


class Response(msgspec.Struct, frozen=True):
    """A response of the backend model."""

    status: str | None = None
    error: Error | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: dict[str, Any] | None = None


class NestedItem(msgspec.Struct, frozen=True):
    """``response.output_item.done``."""

    item: Item


class NestedResponse(msgspec.Struct, frozen=True):
    """``response.created`` and the events that end a response."""

    response: Response | None = None

    def status(self, kind: str) -> str:
        """Return how the response ended, told by an event of this ``kind``."""
        status = self.response.status if self.response is not None else None
        if status in ("completed", "incomplete", "failed", "cancelled"):
            return status
        return "completed" if kind == "response.done" else kind.removeprefix("response.")

    def as_error(self) -> Error:
        """Return why the response failed or broke off."""
        response = self.response or Response()
        if response.error is not None:
            return response.error
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        code = "content_filter" if reason == "content_filter" else "task_failed"
        return Error(code=code, message=f"a task broke off{f': {reason}' if reason else ''}")


class Delegated(msgspec.Struct, frozen=True):
    """An event of the backend model's stream."""

    delegation_id: str
    """Empty when the service does not say."""
    type: str
    event: Any
    """A NestedItem, NestedResponse or Error; None for events without use here."""


class _Type(msgspec.Struct, frozen=True):
    type: str


class _Envelope(msgspec.Struct, frozen=True):
    event: msgspec.Raw
    delegation_id: str | None = None


_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    name: msgspec.json.Decoder(kind)
    for name, kind in {
        "error": ErrorMessage,
        "session.started": SessionStarted,
        "session.closed": SessionClosed,
        "session.usage.updated": UsageUpdated,
        "session.instructions.appended": Appended,
        "session.output_audio.delta": AudioDelta,
        "session.output_transcript.delta": TranscriptDelta,
        "session.input_transcript.delta": TranscriptDelta,
        "session.delegation.created": DelegationCreated,
        # Those of the backend model. Its errors have no body of their own.
        NESTED + "error": Error,
        NESTED + "response.output_item.done": NestedItem,
        NESTED + "response.created": NestedResponse,
        NESTED + "response.completed": NestedResponse,
        NESTED + "response.failed": NestedResponse,
        NESTED + "response.incomplete": NestedResponse,
        # Not of the Responses API as it is documented.
        NESTED + "response.cancelled": NestedResponse,
        NESTED + "response.done": NestedResponse,
    }.items()
}
_TYPE_DECODER: Final = msgspec.json.Decoder(_Type)
_ENVELOPE_DECODER: Final = msgspec.json.Decoder(_Envelope)


def parse(data: bytes | memoryview) -> tuple[str, Any]:
    """Return the name of a server event and its message; the message is None for events without use here.

    Raises ProtocolError when it is not an event, or an event that we need lacks what makes it one.
    """
    try:
        name = _TYPE_DECODER.decode(data).type
        if name == "response.event":
            return _nested(_ENVELOPE_DECODER.decode(data))
        decoder = None if name.startswith(NESTED) else _DECODERS.get(name)
        return name, decoder.decode(data) if decoder is not None else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("OpenAI Live", f"an event that cannot be read: {error}") from error


def _nested(envelope: _Envelope) -> tuple[str, Delegated]:
    kind = _TYPE_DECODER.decode(envelope.event).type
    decoder = _DECODERS.get(NESTED + kind)
    event = decoder.decode(envelope.event) if decoder is not None else None
    return NESTED + kind, Delegated(envelope.delegation_id or "", kind, event)
