"""Session descriptions (RFC 4566) of one audio stream, and the answer to an offer (RFC 3264)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast, get_args

from arivox.audio.g711 import Law
from arivox.errors import ProtocolError

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

# RFC 3551 table 4: the static payload types of G.711.
PAYLOAD_TYPES: Final[dict[Law, int]] = {"ulaw": 0, "alaw": 8}
LAWS: Final[dict[int, Law]] = {number: law for law, number in PAYLOAD_TYPES.items()}
_NAMES: Final[dict[Law, str]] = {"ulaw": "PCMU", "alaw": "PCMA"}
_MIRROR: Final[dict[Direction, Direction]] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A codec that a phone agrees on and does not speak: each of its packets holds ``packet``."""

    payload_type: int
    name: str
    """Name and clock as in ``a=rtpmap``, such as ``G729/8000``."""
    packet: bytes


G729: Final = Foreign(18, "G729/8000", bytes(20))


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """One audio stream of G.711, with telephone events (RFC 4733) where ``event_type`` is not None.

    ``laws`` are in order of preference; ``direction`` is seen from whoever wrote the description. ``foreign``
    is offered before them. ``formats`` are the payload types of a description that was read.
    """

    address: str
    port: int
    laws: tuple[Law, ...]
    event_type: int | None = 101
    direction: Direction = "sendrecv"
    ptime_ms: int = 20
    version: int = 1
    foreign: Foreign | None = None
    formats: tuple[int, ...] = field(default=(), compare=False)

    def encode(self) -> bytes:
        """Return the body of content type application/sdp."""
        formats = [str(PAYLOAD_TYPES[law]) for law in self.laws]
        attributes = [f"a=rtpmap:{PAYLOAD_TYPES[law]} {_NAMES[law]}/8000" for law in self.laws]
        if self.foreign is not None:
            formats.insert(0, str(self.foreign.payload_type))
            attributes.insert(0, f"a=rtpmap:{self.foreign.payload_type} {self.foreign.name}")
        if self.event_type is not None:
            formats.append(str(self.event_type))
            attributes += [
                f"a=rtpmap:{self.event_type} telephone-event/8000",
                f"a=fmtp:{self.event_type} 0-16",
            ]
        lines = [
            "v=0",
            f"o=- 1 {self.version} IN IP4 {self.address}",
            "s=-",
            f"c=IN IP4 {self.address}",
            "t=0 0",
        ]
        lines.append(f"m=audio {self.port} RTP/AVP {' '.join(formats)}")
        lines += [*attributes, f"a=ptime:{self.ptime_ms}", f"a={self.direction}", ""]
        return "\r\n".join(lines).encode()

    def answer(self, offer: SessionDescription) -> SessionDescription:
        """Return this description as the answer to ``offer``: shared codecs in the order of the offer.

        Raise ProtocolError if no codec is shared.
        """
        laws = tuple(law for law in offer.laws if law in self.laws)
        if not laws:
            raise ProtocolError("SDP", f"offer of {offer.laws or 'no G.711'} meets a phone with {self.laws}")
        return replace(self, laws=laws, event_type=offer.event_type, direction=_MIRROR[offer.direction])


def parse(body: bytes) -> SessionDescription:
    """Parse a description and keep its first audio stream. Raise ProtocolError if there is none."""
    lines = body.decode("utf-8", "replace").splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("m=audio ")), None)
    if start is None:
        raise ProtocolError("SDP", "no audio stream")
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("m=")), len(lines))
    media = re.match(r"m=audio ([0-9]{1,5})(?:/[0-9]+)? RTP/\S+((?: [0-9]{1,3})+)", lines[start])
    if media is None or int(media[1]) > 65535:
        raise ProtocolError("SDP", f"cannot read {lines[start]!r}")
    session = [line for line in lines[:start] if not line.startswith("m=")]
    own = lines[start + 1 : end]
    # A line of the stream overrides the same line of the session (RFC 4566 section 5.7).
    address = _first(r"c=IN IP4 (\S+)", own) or _first(r"c=IN IP4 (\S+)", session)
    if address is None or not _is_ipv4(address):
        raise ProtocolError("SDP", f"connection address is {address!r}, not IPv4")
    direction = _direction(own) or _direction(session) or "sendrecv"
    if address == "0.0.0.0":  # hold as RFC 2543 wrote it
        direction = "inactive"
    event = _first(r"a=rtpmap:([0-9]{1,3}) telephone-event/8000", own)
    ptime = _first(r"a=ptime:([0-9]{1,4})", own)
    version = _first(r"o=\S+ \S+ ([0-9]{1,20})", session)
    return SessionDescription(
        address=address,
        port=int(media[1]),
        laws=tuple(LAWS[number] for number in map(int, media[2].split()) if number in LAWS),
        event_type=int(event) if event else None,
        direction=direction,
        ptime_ms=int(ptime) if ptime else 20,
        version=int(version) if version else 1,
        formats=tuple(map(int, media[2].split())),
    )


def _is_ipv4(address: str) -> bool:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return True


def _first(pattern: str, lines: list[str]) -> str | None:
    return next((match[1] for line in lines if (match := re.match(pattern, line))), None)


def _direction(lines: list[str]) -> Direction | None:
    found = [line[2:] for line in lines if line.startswith("a=") and line[2:] in get_args(Direction)]
    return cast("Direction", found[-1]) if found else None
