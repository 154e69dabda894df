"""ARI's messages, typed. Unknown fields and events are let through: each release of Asterisk adds some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from arivox.errors import ProtocolError


class CallerId(msgspec.Struct, frozen=True):
    """Name and number of a party; both may be empty."""

    name: str = ""
    number: str = ""


class Dialplan(msgspec.Struct, frozen=True):
    """Where in the dialplan a channel is."""

    context: str = ""
    exten: str = ""
    priority: int = 0
    app_name: str = ""
    """The dialplan application that the channel is in."""
    app_data: str = ""
    """What the application was given."""

    @property
    def stasis_args(self) -> tuple[str, ...]:
        """Return what ``Stasis()`` was given besides the name; ``StasisStart`` tells it only once."""
        return tuple(self.app_data.split(",")[1:]) if self.app_name == "Stasis" else ()

    @property
    def following(self) -> Dialplan:
        """Return the place after this one."""
        return Dialplan(self.context, self.exten, self.priority + 1)


class Channel(msgspec.Struct, frozen=True):
    """One leg of a call."""

    id: str
    name: str = ""
    state: str = ""
    """``Down``, ``Ring`` (inbound, not answered), ``Ringing`` (outbound), ``Up``, …"""
    protocol_id: str = ""
    """SIP Call-ID."""
    caller: CallerId = CallerId()
    connected: CallerId = CallerId()
    """Whom it talks to, as far as Asterisk knows."""
    dialplan: Dialplan = Dialplan()
    channelvars: dict[str, str] = {}

    @property
    def rtp_address(self) -> tuple[str, int] | None:
        """Return where Asterisk's own end of an ``externalMedia`` channel is; None if it does not say."""
        variables = self.channelvars
        try:
            return variables["UNICASTRTP_LOCAL_ADDRESS"], int(variables["UNICASTRTP_LOCAL_PORT"])
        except (KeyError, ValueError):
            return None


class Bridge(msgspec.Struct, frozen=True):
    """What joins legs."""

    id: str
    name: str = ""
    technology: str = ""
    channels: list[str] = []


class Playback(msgspec.Struct, frozen=True):
    """A sound being played."""

    id: str
    state: str = ""


class Application(msgspec.Struct, frozen=True):
    """A Stasis application and what it holds."""

    name: str
    channel_ids: list[str] = []
    bridge_ids: list[str] = []


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the events we know. ``timestamp`` is Asterisk's wall clock, ISO 8601."""

    timestamp: str = ""
    application: str = ""


class StasisStart(Event, frozen=True, kw_only=True):
    """A channel entered our application. ``args`` are the dialplan's arguments.

    With ``replace_channel`` the dialplan has no part in it: a telephone has transferred its call, and
    ``channel``, often ``Down`` for a moment, stands in the bridge in the place of that telephone's.
    """

    channel: Channel
    args: Sequence[str] = ()
    replace_channel: Channel | None = None


class StasisEnd(Event, frozen=True, kw_only=True):
    """A channel left our application."""

    channel: Channel


class ChannelHangupRequest(Event, frozen=True, kw_only=True):
    """The far end of a channel hung up."""

    channel: Channel
    cause: int | None = None


class ChannelDestroyed(Event, frozen=True, kw_only=True):
    """A channel is gone. Not sent for inbound channels."""

    channel: Channel
    cause: int = 0
    cause_txt: str = ""


class ChannelDtmfReceived(Event, frozen=True, kw_only=True):
    """A digit was pressed and let go."""

    channel: Channel
    digit: str
    duration_ms: int = 0


class ChannelHold(Event, frozen=True, kw_only=True):
    """The far end of a channel put us on hold: it neither sends nor hears anything."""

    channel: Channel


class ChannelUnhold(Event, frozen=True, kw_only=True):
    """The far end took us back from hold. Also told before a transfer by the telephone, without a hold."""

    channel: Channel


class ChannelStateChange(Event, frozen=True, kw_only=True):
    """A channel is in another state."""

    channel: Channel


class ChannelLeftBridge(Event, frozen=True, kw_only=True):
    """A channel left a bridge, whoever took it out.

    Where Asterisk cannot translate between two codecs this follows the entry, and nothing else tells of it.
    """

    bridge: Bridge
    channel: Channel


class ApplicationReplaced(Event, frozen=True, kw_only=True):
    """Another connection took our application over; this one will hear nothing more."""


class PlaybackFinished(Event, frozen=True, kw_only=True):
    """A sound ended, was stopped or failed (``playback.state``)."""

    playback: Playback


class OtherEvent(msgspec.Struct, frozen=True):
    """An event that we have no use for."""

    type: str


AnyEvent = (
    StasisStart
    | StasisEnd
    | ChannelHangupRequest
    | ChannelDestroyed
    | ChannelDtmfReceived
    | ChannelHold
    | ChannelUnhold
    | ChannelStateChange
    | ChannelLeftBridge
    | ApplicationReplaced
    | PlaybackFinished
    | OtherEvent
)

_EVENTS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind.__name__: msgspec.json.Decoder(kind)
    for kind in (
        StasisStart,
        StasisEnd,
        ChannelHangupRequest,
        ChannelDestroyed,
        ChannelDtmfReceived,
        ChannelHold,
        ChannelUnhold,
        ChannelStateChange,
        ChannelLeftBridge,
        ApplicationReplaced,
        PlaybackFinished,
    )
}
_TYPE: Final = msgspec.json.Decoder(OtherEvent)

T = TypeVar("T")


def parse_event(data: bytes | str) -> AnyEvent:
    """Parse one message of the events WebSocket. Raises ProtocolError."""
    try:
        other = _TYPE.decode(data)
        decoder = _EVENTS.get(other.type)
        event: AnyEvent = decoder.decode(data) if decoder is not None else other
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("ARI", f"an event that cannot be read: {error}") from error
    return event


def parse(data: bytes, kind: type[T]) -> T:
    """Parse the body of an answer. Raises ProtocolError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("ARI", f"an answer that cannot be read: {error}") from error
