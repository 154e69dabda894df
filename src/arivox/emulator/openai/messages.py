"""The client's events of OpenAI's Realtime protocol (GA), strictly read.

Shapes: ``openai.types.realtime.RealtimeClientEvent`` of openai-python 3.54 and the API reference,
https://platform.openai.com/docs/api-reference/realtime-client-events.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from arivox.errors import ProtocolError

PROTOCOL: Final = "OpenAI Realtime"


class RequestError(ProtocolError):
    """What the client asked for is refused with an ``error`` event."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        event_id: str | None = None,
        type: str = "invalid_request_error",  # noqa: A002 - the wire's name
    ) -> None:
        super().__init__(PROTOCOL, message)
        self.code = code
        self.param = param
        self.event_id = event_id
        self.type = type

    def as_error(self) -> dict[str, Any]:
        """Return the ``error`` object of an ``error`` event."""
        return {
            "type": self.type,
            "code": self.code,
            "message": self.problem,
            "param": self.param,
            "event_id": self.event_id,
        }


class ClientEvent(Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    """Base of the client's events. ``event_id`` comes back in an ``error`` only."""

    event_id: str | None = None


class SessionUpdate(ClientEvent, tag="session.update"):
    """Change the keys of the session that are present."""

    session: dict[str, Any]


class InputAudioAppend(ClientEvent, tag="input_audio_buffer.append"):
    """Audio in the session's input format."""

    audio: bytes


class InputAudioCommit(ClientEvent, tag="input_audio_buffer.commit"):
    """End of the user's turn, when turn detection is off."""


class InputAudioClear(ClientEvent, tag="input_audio_buffer.clear"):
    """Forget the audio that is not committed."""


class ItemCreate(ClientEvent, tag="conversation.item.create"):
    """Put an item into the conversation."""

    item: dict[str, Any]
    previous_item_id: str | None = None


class ItemRetrieve(ClientEvent, tag="conversation.item.retrieve"):
    """Ask for an item with its audio."""

    item_id: str


class ItemTruncate(ClientEvent, tag="conversation.item.truncate"):
    """Cut the assistant's audio to what was played."""

    item_id: str
    content_index: int
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ItemDelete(ClientEvent, tag="conversation.item.delete"):
    """Remove an item."""

    item_id: str


class ResponseOutput(Struct, forbid_unknown_fields=True):
    """``response.audio.output`` of ``response.create``."""

    format: dict[str, Any] | UnsetType = UNSET
    voice: str | dict[str, Any] | UnsetType = UNSET


class ResponseAudio(Struct, forbid_unknown_fields=True):
    """``response.audio`` of ``response.create``."""

    output: ResponseOutput | UnsetType = UNSET


class ResponseParams(Struct, forbid_unknown_fields=True):
    """What ``response.create`` may set for one response."""

    instructions: str | None = None
    output_modalities: list[Literal["text", "audio"]] | None = None
    audio: ResponseAudio | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    conversation: Literal["auto", "none"] | None = None
    input: list[dict[str, Any]] | None = None
    reasoning: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt: dict[str, Any] | None = None


class ResponseCreate(ClientEvent, tag="response.create"):
    """Ask for a response."""

    response: ResponseParams | None = None


class ResponseCancel(ClientEvent, tag="response.cancel"):
    """Stop a response."""

    response_id: str | None = None


class OutputAudioClear(ClientEvent, tag="output_audio_buffer.clear"):
    """Means something over WebRTC and SIP only."""


_EVENTS: Final = (
    SessionUpdate,
    InputAudioAppend,
    InputAudioCommit,
    InputAudioClear,
    ItemCreate,
    ItemRetrieve,
    ItemTruncate,
    ItemDelete,
    ResponseCreate,
    ResponseCancel,
    OutputAudioClear,
)
AnyClientEvent = (
    SessionUpdate
    | InputAudioAppend
    | InputAudioCommit
    | InputAudioClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
    | OutputAudioClear
)
_TYPES: Final = [str(event.__struct_config__.tag) for event in _EVENTS]
_decoder: Final[msgspec.json.Decoder[AnyClientEvent]] = msgspec.json.Decoder(AnyClientEvent)

_T = TypeVar("_T")
_AT = re.compile(r" - at `(?:key in )?\$?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"(?P<what>unknown|missing required) field `(?P<name>[^`]*)`")


def decode(data: bytes) -> AnyClientEvent:
    """Return the client event in a text frame.

    Raises:
        RequestError: It is not JSON, of no known type, or has missing, unknown or wrong fields.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as exc:
        raise _refused(exc, "", msgspec.json.decode(data)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError("invalid_json", f"The message could not be parsed as JSON: {exc}") from exc


def convert(value: Any, type_: type[_T], at: str) -> _T:
    """Return decoded JSON ``value`` as ``type_``; ``at`` is its path in the event, for the error.

    Raises:
        RequestError: A field is missing, unknown or wrong; ``param`` names it.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        raise _refused(exc, at, None) from exc


def _refused(exc: msgspec.ValidationError, at: str, event: Any) -> RequestError:
    text = str(exc)
    event_id = event.get("event_id") if isinstance(event, dict) else None
    event_id = event_id if isinstance(event_id, str) else None
    where = _AT.search(text)
    path = (at + where["path"] if where else at).removeprefix(".")
    named = _NAMED.search(text)
    if named:
        param = f"{path}.{named['name']}".removeprefix(".")
        missing = named["what"] != "unknown"
        code = "missing_required_parameter" if missing else "unknown_parameter"
        message = f"{'Missing required' if missing else 'Unknown'} parameter: '{param}'."
    elif path == "type" and isinstance(event, dict):
        param, code = path, "invalid_value"
        supported = ", ".join(f"'{name}'" for name in _TYPES)
        message = f"Invalid value: {str(event['type'])!r}. Supported values are: {supported}."
    elif not path:
        param, code, message = None, "invalid_event", "An event is a JSON object with a type."
    else:
        param = path
        code = "invalid_type" if ", got `" in text else "invalid_value"
        detail = text[: where.start()] if where else text
        message = f"Invalid {code.removeprefix('invalid_')} for '{path}': {detail}."
    return RequestError(code, message, param=param, event_id=event_id)
