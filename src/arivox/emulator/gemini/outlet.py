"""The way out of a session: encodes and writes the server's messages, as JSON in binary frames."""

from __future__ import annotations

import secrets
from binascii import b2a_base64
from itertools import count
from typing import Any, Final

import msgspec

from arivox.emulator.record import Record
from arivox.emulator.session import Wire

AUDIO_MIME: Final = "audio/pcm;rate=24000"
_AUDIO_KIND: Final = "serverContent.modelTurn"
# Several fields may share a message; these are the names it is recorded by, the first that is there.
_CONTENT: Final = (
    "modelTurn",
    "interrupted",
    "turnComplete",
    "generationComplete",
    "inputTranscription",
    "outputTranscription",
)


def model_turn(audio: bytes) -> dict[str, Any]:
    """Return a ``modelTurn`` that holds audio."""
    data = b2a_base64(audio, newline=False).decode()
    return {"role": "model", "parts": [{"inlineData": {"mimeType": AUDIO_MIME, "data": data}}]}


def pretty(event: dict[str, Any]) -> bytes:
    """Return JSON the way the service writes it."""
    return msgspec.json.format(msgspec.json.encode(event), indent=2) + b"\n"


_HEAD, _TAIL = pretty({"serverContent": {"modelTurn": model_turn(b"")}}).split(b'""')
_HEAD, _TAIL = _HEAD + b'"', b'"' + _TAIL


class Outlet:
    """Writes messages until it is shut; then they are lost."""

    def __init__(self, wire: Wire, record: Record) -> None:
        self._wire = wire
        self._record = record
        self._stem = secrets.token_hex(6)
        self._count = count(1)
        self.shut = False

    def clock(self) -> float:
        """Return the time by which frames are noted."""
        return self._record.clock()

    def new_id(self, prefix: str) -> str:
        """Return an id that no other object of this emulator has."""
        return f"{prefix}-{self._stem}{next(self._count):08x}"

    def emit(self, **event: Any) -> None:
        """Write one message."""
        self.write(_kind(event), pretty(event))

    def content(self, **fields: Any) -> None:
        """Write a ``serverContent``."""
        self.emit(serverContent=fields)

    def audio(self, audio: bytes) -> None:
        """Write a ``modelTurn`` of audio. Joined by hand: benchmarks send thousands in a second."""
        if self.shut:
            return
        data = b"".join((_HEAD, b2a_base64(audio, newline=False), _TAIL))
        self._record.note(_AUDIO_KIND, data, sent=True)
        self._wire.send(data, binary=True)

    def write(self, kind: str, data: bytes) -> None:
        """Write one frame as it is."""
        if self.shut:
            return
        self._record.note(kind, data, sent=True)
        self._wire.send(data, binary=True)

    def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        if not self.shut:
            self.shut = True
            self._wire.close(code, reason)

    def abort(self) -> None:
        """Reset the connection."""
        if not self.shut:
            self.shut = True
            self._wire.abort()


def _kind(event: dict[str, Any]) -> str:
    kind = next(iter(event))
    if kind != "serverContent":
        return kind
    name = next((name for name in _CONTENT if name in event[kind]), "")
    return f"{kind}.{name}" if name else kind
