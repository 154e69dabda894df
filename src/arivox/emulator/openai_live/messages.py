"""The client's events of OpenAI's Live protocol, strictly read.

Shapes: ``openai.types.live.ClientEventParam`` of openai-python 3.54. All of them may carry an ``event_id``,
which comes back as ``client_event_id`` in the event that answers them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from arivox.emulator.openai.messages import ClientEvent, RequestError, convert

AUDIO_APPEND: Final = "session.input_audio.append"


class SessionStart(ClientEvent, tag="session.start"):
    """Begin the session: the first event of all."""

    session: dict[str, Any]


class SessionUpdate(ClientEvent, tag="session.update"):
    """Change delegation or triggers."""

    session: dict[str, Any]


class InputAudioAppend(ClientEvent, tag=AUDIO_APPEND):
    """Audio in the session's format."""

    audio: bytes


class InputAudioMute(ClientEvent, tag="session.input_audio.mute"):
    """Hear silence from now on."""


class InputAudioUnmute(ClientEvent, tag="session.input_audio.unmute"):
    """Hear the caller again."""


class Append(ClientEvent):
    """Text for the model; ``delegation_id`` must be there, and may be null."""

    content: str
    delegation_id: str | None


class InstructionsAppend(Append, tag="session.instructions.append"):
    """What to do from now on."""


class ThinkingAppend(Append, tag="session.thinking.append"):
    """What to know without saying it."""


class CommentaryAppend(Append, tag="session.commentary.append"):
    """What may be told to the caller."""


class FixturePlay(ClientEvent, tag="session.output_audio.fixture.play"):
    """Play a clip of 16-bit samples at 24 kHz as it is."""

    audio: bytes


class ResponseItemCreate(ClientEvent, tag="response.item.create"):
    """Give the backend an item, such as the output of a function."""

    item: dict[str, Any]


class ResponseCreate(ClientEvent, tag="response.create"):
    """Have the backend go on."""


class DecisionCreate(ClientEvent, tag="decision.create"):
    """Ask for a decision."""


class DecisionItemCreate(ClientEvent, tag="decision.item.create"):
    """Give an item to later decisions."""

    item: dict[str, Any]


class DecisionItemDelete(ClientEvent, tag="decision.item.delete"):
    """Take an item back."""

    item_id: str


class SessionClose(ClientEvent, tag="session.close"):
    """End the session."""


_EVENTS: Final = (
    SessionStart,
    SessionUpdate,
    InputAudioAppend,
    InputAudioMute,
    InputAudioUnmute,
    InstructionsAppend,
    ThinkingAppend,
    CommentaryAppend,
    FixturePlay,
    ResponseItemCreate,
    ResponseCreate,
    DecisionCreate,
    DecisionItemCreate,
    DecisionItemDelete,
    SessionClose,
)
AnyClientEvent = (
    SessionStart
    | SessionUpdate
    | InputAudioAppend
    | InputAudioMute
    | InputAudioUnmute
    | InstructionsAppend
    | ThinkingAppend
    | CommentaryAppend
    | FixturePlay
    | ResponseItemCreate
    | ResponseCreate
    | DecisionCreate
    | DecisionItemCreate
    | DecisionItemDelete
    | SessionClose
)
_TYPES: Final = [str(event.__struct_config__.tag) for event in _EVENTS]
_decoder: Final[msgspec.json.Decoder[AnyClientEvent]] = msgspec.json.Decoder(AnyClientEvent)


def decode(data: bytes) -> AnyClientEvent:
    """Return the client event in a text frame.

    Raises:
        RequestError: It is not JSON, of no known type, or has missing, unknown or wrong fields.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError("invalid_json", f"The message could not be parsed as JSON: {exc}") from exc
    try:
        # Fails as it did above, now with an error that names the field.
        return convert(event, AnyClientEvent, "")  # type: ignore[arg-type]
    except RequestError as exc:
        raise _refusal(exc, event) from exc


def kind_of(data: bytes) -> str:
    """Return the ``type`` of a frame that could not be read, ``""`` when it has none."""
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    kind = event.get("type") if isinstance(event, dict) else None
    return kind if isinstance(kind, str) else ""


def _refusal(error: RequestError, event: Any) -> RequestError:
    code, message = error.code, error.problem
    if error.param == "type" and isinstance(event, dict) and "type" in event:
        supported = ", ".join(f"'{name}'" for name in _TYPES)
        code = "invalid_value"
        message = f"Invalid value: {str(event['type'])!r}. Supported values are: {supported}."
    event_id = event.get("event_id") if isinstance(event, dict) else None
    return RequestError(
        code,
        message,
        param=error.param,
        event_id=event_id if isinstance(event_id, str) else None,
    )
