"""SIP messages (RFC 3261) and digest authentication (RFC 7616, RFC 8760), as far as a test caller needs.

Bytes in, messages out, and back. There is no socket, clock or state here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from arivox.errors import ProtocolError

Header = tuple[str, str]

# RFC 3261 section 20, table of compact forms, and RFC 3515 for Refer-To.
_COMPACT: Final = {
    "b": "referred-by",
    "c": "content-type",
    "f": "from",
    "i": "call-id",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "v": "via",
}
_REQUEST_LINE: Final = re.compile(r"([A-Z]+) (\S+) SIP/2\.0")
_STATUS_LINE: Final = re.compile(r"SIP/2\.0 ([1-6]\d\d) ?(.*)")
_CSEQ: Final = re.compile(r"([0-9]{1,10})\s+([A-Z]+)")
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
_CHALLENGE_FIELD: Final = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_DIGESTS: Final = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}

REASONS: Final = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    501: "Not Implemented",
    503: "Service Unavailable",
    603: "Decline",
}


@dataclass(slots=True)
class Message:
    """What requests and responses share: headers in order, and a body."""

    headers: list[Header] = field(default_factory=list, kw_only=True)
    body: bytes = field(default=b"", kw_only=True)

    def get(self, name: str) -> str | None:
        """Return the first value of header ``name`` (any case), or None."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), None)

    def all(self, name: str) -> list[str]:
        """Return every value of header ``name``, in order of appearance."""
        name = name.lower()
        return [value for key, value in self.headers if key.lower() == name]

    def require(self, name: str) -> str:
        """Return the first value of header ``name``; raise ProtocolError where it is missing."""
        value = self.get(name)
        if value is None:
            raise ProtocolError("SIP", f"{self.start_line()} has no {name} header")
        return value

    @property
    def call_id(self) -> str:
        """The Call-ID."""
        return self.require("Call-ID")

    @property
    def cseq(self) -> tuple[int, str]:
        """The number and the method of CSeq."""
        match = _CSEQ.fullmatch(self.require("CSeq"))
        if match is None:
            raise ProtocolError("SIP", f"CSeq is {self.get('CSeq')!r}, not a number and a method")
        return int(match[1]), match[2]

    @property
    def branch(self) -> str:
        """The branch of the topmost Via, which names the transaction (RFC 3261 section 17.1.3)."""
        return parameter(self.require("Via"), "branch")

    def check(self) -> None:
        """Raise ProtocolError unless it has the headers of every message (RFC 3261 section 8.1.1)."""
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            self.require(name)
        _ = self.cseq

    def start_line(self) -> str:
        """Return the first line of the message."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """Return the datagram. Content-Length is added."""
        lines = [self.start_line(), *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass(slots=True)
class Request(Message):
    """A request: ``method`` in capitals, ``uri`` as in the request line."""

    method: str
    uri: str

    def start_line(self) -> str:
        """Return the request line."""
        return f"{self.method} {self.uri} SIP/2.0"


@dataclass(slots=True)
class Response(Message):
    """A response with its status code (100-699) and reason phrase."""

    status: int
    reason: str = ""

    def start_line(self) -> str:
        """Return the status line."""
        return f"SIP/2.0 {self.status} {self.reason}"


def parse(data: bytes) -> Request | Response:
    """Parse one datagram. Raise ProtocolError if it is not a SIP message."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        raise ProtocolError("SIP", "message has no empty line after its headers")
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise ProtocolError("SIP", f"headers are not UTF-8: {error}") from error
    headers = _parse_headers(lines[1:])
    message: Request | Response
    if match := _STATUS_LINE.fullmatch(lines[0]):
        message = Response(int(match[1]), match[2], headers=headers)
    elif match := _REQUEST_LINE.fullmatch(lines[0]):
        message = Request(match[1], match[2], headers=headers)
    else:
        raise ProtocolError("SIP", f"first line is {lines[0][:80]!r}")
    length = message.get("Content-Length")
    if length is not None:
        if not _LENGTH.fullmatch(length) or int(length) > len(body):
            raise ProtocolError("SIP", f"Content-Length is {length!r} but the body has {len(body)} bytes")
        body = body[: int(length)]
    message.headers = [header for header in headers if header[0].lower() != "content-length"]
    message.body = body
    return message


def _parse_headers(lines: Iterable[str]) -> list[Header]:
    headers: list[Header] = []
    for line in lines:
        if line[:1] in (" ", "\t") and headers:  # folded, RFC 3261 section 7.3.1
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name:
            raise ProtocolError("SIP", f"header line {line[:80]!r} has no name")
        headers.append((_COMPACT.get(name.lower(), name), value.strip()))
    return headers


def parameter(value: str, name: str) -> str:
    """Return parameter ``name`` of a header value (``;name=x``), or the empty string.

    Parameters inside the angle brackets belong to the URI and are not looked at.
    """
    outside = value.rpartition(">")[2] if ">" in value else value
    for part in outside.split(";")[1:]:
        key, _, content = part.partition("=")
        if key.strip().lower() == name.lower():
            return content.strip().strip('"')
    return ""


def uri_of(value: str) -> str:
    """Return the URI of a From, To, Contact or Refer-To value, with or without angle brackets."""
    match = re.search(r"<([^>]*)>", value)
    return match[1] if match else value.split(";")[0].strip()


def with_tag(value: str, tag: str) -> str:
    """Return a From or To value with ``tag`` added unless it has one."""
    return value if parameter(value, "tag") else f"{value};tag={tag}"


def response_to(request: Request, status: int, tag: str, headers: Iterable[Header] = ()) -> Response:
    """Return a response with the headers that RFC 3261 section 8.2.6.2 copies from ``request``."""
    copied = [("Via", via) for via in request.all("Via")]
    copied.append(("From", request.require("From")))
    to = request.require("To")
    copied.append(("To", to if status == 100 else with_tag(to, tag)))
    copied.append(("Call-ID", request.call_id))
    copied.append(("CSeq", request.require("CSeq")))
    return Response(status, REASONS.get(status, "Unknown"), headers=[*copied, *headers])


def authorization(challenge: str, *, method: str, uri: str, user: str, password: str, cnonce: str) -> str:
    """Return the value of (Proxy-)Authorization that answers the Digest ``challenge``.

    Raise ProtocolError where it is no Digest, lacks realm or nonce, or wants an unknown algorithm.
    """
    scheme, _, rest = challenge.partition(" ")
    fields = {match[1].lower(): match[2] or match[3] or "" for match in _CHALLENGE_FIELD.finditer(rest)}
    if scheme.lower() != "digest" or "realm" not in fields or "nonce" not in fields:
        raise ProtocolError("SIP", f"cannot answer the challenge {challenge[:80]!r}")
    algorithm = fields.get("algorithm", "MD5")
    digest = _DIGESTS.get(algorithm.upper())
    if digest is None:
        raise ProtocolError("SIP", f"the challenge wants digest algorithm {algorithm!r}")

    def hashed(*parts: str) -> str:
        return digest(":".join(parts).encode()).hexdigest()

    realm, nonce, count = fields["realm"], fields["nonce"], "00000001"
    secret, request = hashed(user, realm, password), hashed(method, uri)
    quality = "auth" in [option.strip() for option in fields.get("qop", "").split(",")]
    answer = (
        hashed(secret, nonce, count, cnonce, "auth", request) if quality else hashed(secret, nonce, request)
    )
    parts = [f'username="{user}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"']
    parts += [f'response="{answer}"', f"algorithm={algorithm}"]
    if quality:
        parts += ["qop=auth", f"nc={count}", f'cnonce="{cnonce}"']
    if "opaque" in fields:
        parts.append(f'opaque="{fields["opaque"]}"')
    return "Digest " + ", ".join(parts)
