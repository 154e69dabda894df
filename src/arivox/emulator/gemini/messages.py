"""The client's messages of Gemini Live, strictly read, in every spelling that Google takes.

Shapes: ``google.genai.types.LiveClientMessage`` of google-genai 3.4 and
https://ai.google.dev/api/live. As in Google's own reader of JSON, keys may be in camelCase or snake_case and
base64 of either alphabet; a key that is not known ends the connection.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from arivox.errors import ProtocolError

PROTOCOL: Final = "Gemini Live"
INVALID_ARGUMENT: Final = 1007
POLICY: Final = 1008
INTERNAL: Final = 1011

Int64 = int | Annotated[str, Meta(pattern=r"^-?[0-9]+$")]
"""Google writes 64-bit integers as strings and reads both."""


class RefusedError(ProtocolError):
    """What the client sent ends the connection, with a close code and a reason."""

    def __init__(self, reason: str, code: int = INVALID_ARGUMENT) -> None:
        super().__init__(PROTOCOL, reason)
        self.code = code
        self.reason = reason


def invalid(detail: str) -> RefusedError:
    """Return the refusal of an argument that is well formed and wrong."""
    return RefusedError(f"Request contains an invalid argument. {detail}")


class Object(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A JSON object of the protocol."""


class Blob(Object):
    """Bytes and what they are."""

    mime_type: str
    data: bytes
    display_name: str | None = None


class Part(Object):
    """One part of a content; of these, only text and calls mean something to the emulator."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: bytes | None = None
    inline_data: Blob | None = None
    file_data: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None
    function_response: dict[str, Any] | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    video_metadata: dict[str, Any] | None = None
    part_metadata: dict[str, Any] | None = None
    media_resolution: dict[str, Any] | None = None


class Content(Object):
    """What one side said."""

    role: Literal["user", "model", "system"] | None = None
    parts: list[Part] = []

    @property
    def text(self) -> str:
        """Return every text in it."""
        return "\n".join(part.text for part in self.parts if part.text)


class FunctionDeclaration(Object):
    """A function the model may call; its parameters are a schema of Google's or a JSON schema."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$")]
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    behavior: Literal["UNSPECIFIED", "BLOCKING", "NON_BLOCKING"] | None = None


class Tool(Object):
    """Functions, or one of Google's own tools, which are taken and never used."""

    function_declarations: list[FunctionDeclaration] = []
    google_search: dict[str, Any] | None = None
    google_search_retrieval: dict[str, Any] | None = None
    google_maps: dict[str, Any] | None = None
    code_execution: dict[str, Any] | None = None
    url_context: dict[str, Any] | None = None
    retrieval: dict[str, Any] | None = None
    enterprise_web_search: dict[str, Any] | None = None


class ClientContent(Object):
    """Turns for the history; ``turnComplete`` asks for an answer to them."""

    turns: list[Content] = []
    turn_complete: bool = False


class Empty(Object):
    """An object that says everything by being there."""


class RealtimeInput(Object):
    """What the caller does at this moment."""

    audio: Blob | None = None
    video: Blob | None = None
    media_chunks: list[Blob] = []
    text: str | None = None
    audio_stream_end: bool | None = None
    activity_start: Empty | None = None
    activity_end: Empty | None = None


class FunctionResponse(Object):
    """The result of a call."""

    id: str | None = None
    name: str | None = None
    response: dict[str, Any] = {}
    parts: list[dict[str, Any]] | None = None
    scheduling: Literal["SCHEDULING_UNSPECIFIED", "SILENT", "WHEN_IDLE", "INTERRUPT"] | None = None
    will_continue: bool = False


class ToolResponse(Object):
    """Results of calls."""

    function_responses: list[FunctionResponse] = []


class UpdatedTools(Object):
    """The tools from now on; without a list, none."""

    tools: list[Tool] = []


class ContextUpdate(Object):
    """Another instruction or other tools, from now on."""

    system_instruction: Content | None = None
    tools: UpdatedTools | None = None


class _Message(Object):
    setup: dict[str, Any] | None = None
    client_content: ClientContent | None = None
    realtime_input: RealtimeInput | None = None
    tool_response: ToolResponse | None = None
    context_update: ContextUpdate | None = None


class _Audio(Object):
    audio: Blob


class _AudioMessage(Object):
    realtime_input: _Audio


Message = dict[str, Any] | ClientContent | RealtimeInput | ToolResponse | ContextUpdate
"""A dict is a ``setup``, which ``config.Setup`` reads."""

_audio_decoder: Final[msgspec.json.Decoder[_AudioMessage]] = msgspec.json.Decoder(_AudioMessage)

_KINDS: Final = ("setup", "clientContent", "realtimeInput", "toolResponse", "contextUpdate")
_REALTIME: Final = (
    "audio",
    "text",
    "audioStreamEnd",
    "activityStart",
    "activityEnd",
    "video",
    "mediaChunks",
)
# What is in these belongs to the user: names of properties, arguments, results.
_OPAQUE: Final = frozenset(
    {
        "parameters",
        "parametersJsonSchema",
        "response",
        "responseJsonSchema",
        "args",
        "labels",
        "partMetadata",
    }
)
_T = TypeVar("_T")
_BYTES: Final = frozenset({"data", "thoughtSignature"})
_STANDARD_BASE64: Final = str.maketrans("-_", "+/")
_AT = re.compile(r" - at `\$?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"(?P<what>unknown|missing required) field `(?P<name>[^`]*)`")
_SNAKE = re.compile(r"_([a-z0-9])")


def decode_audio(data: bytes) -> Blob | None:
    """Return the audio of a message that is plainly ``realtimeInput.audio``; None for every other."""
    try:
        return _audio_decoder.decode(data).realtime_input.audio
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def parse(data: bytes) -> dict[str, Any]:
    """Return the normalised JSON object in a frame.

    Raises:
        RefusedError: It is none.
    """
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RefusedError(f"Invalid JSON payload received. {exc}") from exc
    if not isinstance(event, dict):
        raise RefusedError("Invalid JSON payload received. A message is an object.")
    normal: dict[str, Any] = normalise(event)
    return normal


def kind_of(event: dict[str, Any]) -> str:
    """Return what a record calls the client's message, ``""`` when that cannot be told."""
    if len(event) != 1:
        return ""
    [(kind, value)] = event.items()
    if kind != "realtimeInput" or not isinstance(value, dict):
        return kind if kind in _KINDS else ""
    return next((f"{kind}.{name}" for name in _REALTIME if name in value), kind)


def read(event: dict[str, Any]) -> Message:
    """Return the message in an object that ``parse`` returned.

    Raises:
        RefusedError: It is not one message, or has missing, unknown or wrong fields.
    """
    message = convert(event, _Message, "")
    given = [
        value
        for value in (
            message.setup,
            message.client_content,
            message.realtime_input,
            message.tool_response,
            message.context_update,
        )
        if value is not None
    ]
    if not given:
        raise invalid("A message holds one of " + ", ".join(_KINDS) + ".")
    if len(given) > 1:
        raise RefusedError(
            "Invalid JSON payload received. oneof field 'message_type' is already set: "
            "a message holds exactly one key."
        )
    return given[0]


def normalise(value: Any) -> Any:
    """Return decoded JSON with keys in camelCase, base64 in the standard alphabet and without nulls.

    Raises:
        RefusedError: A key is there in both spellings.
    """
    if isinstance(value, list):
        return [normalise(item) for item in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        name = _camel(key)
        if name in result:
            raise RefusedError(f"Invalid JSON payload received. Field '{name}' is already set.")
        if name in _BYTES and isinstance(item, str):
            text = item.translate(_STANDARD_BASE64).rstrip("=")
            result[name] = text + "=" * (-len(text) % 4)
        else:
            result[name] = item if name in _OPAQUE else normalise(item)
    return result


def convert(value: Any, type_: type[_T], at: str) -> _T:
    """Return normalised JSON as ``type_``; ``at`` is its path in the message, for the reason.

    Raises:
        RefusedError: A field is missing, unknown or wrong; the reason names it.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        raise _refused(str(exc), at) from exc


def _refused(text: str, at: str) -> RefusedError:
    where = _AT.search(text)
    path = (at + where["path"] if where else at).removeprefix(".")
    named = _NAMED.search(text)
    if named and named["what"] == "unknown":
        place = f" at '{path}'" if path else ""
        return RefusedError(
            f'Invalid JSON payload received. Unknown name "{named["name"]}"{place}: Cannot find field.'
        )
    if named:
        return invalid(f"'{f'{path}.' if path else ''}{named['name']}' is required.")
    return RefusedError(f"Invalid value at '{path}': {text[: where.start()] if where else text}.")


@lru_cache(maxsize=1024)
def _camel(key: str) -> str:
    return _SNAKE.sub(lambda found: found[1].upper(), key)
