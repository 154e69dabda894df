"""The way out of a session: numbers, encodes and writes the server's events."""

from __future__ import annotations

import secrets
from binascii import b2a_base64
from itertools import count
from typing import Any

import msgspec

from arivox.emulator.openai import dialect
from arivox.emulator.record import Record
from arivox.emulator.session import Wire


class Outlet:
    """Writes events in the GA shapes, or translated to the beta's when ``beta``."""

    def __init__(self, wire: Wire, record: Record, *, beta: bool) -> None:
        self._wire = wire
        self._record = record
        self._beta = beta
        self._delta_kind = "response.audio.delta" if beta else "response.output_audio.delta"
        self._stem = secrets.token_hex(6)
        self._count = count(1)

    def clock(self) -> float:
        """Return the time by which frames are noted."""
        return self._record.clock()

    def new_id(self, prefix: str) -> str:
        """Return an id that no other object of this emulator has."""
        return f"{prefix}_{self._stem}{next(self._count):08x}"

    def emit(self, type_: str, **fields: Any) -> None:
        """Write the event ``type_``."""
        event = {"type": type_, "event_id": self.new_id("event"), **fields}
        if self._beta:
            for old in dialect.to_beta(event):
                self.write(old["type"], msgspec.json.encode(old))
            return
        self.write(type_, msgspec.json.encode(event))

    def delta_head(self, response_id: str, item_id: str, output_index: int) -> tuple[bytes, bytes]:
        """Return what ``write_delta`` needs for the audio of an item: the JSON around the event's number."""
        before = f'{{"type":"{self._delta_kind}","event_id":"event_{self._stem}'
        after = {
            "response_id": response_id,
            "item_id": item_id,
            "output_index": output_index,
            "content_index": 0,
        }
        return before.encode(), b'",' + msgspec.json.encode(after)[1:-1] + b',"delta":"'

    def write_delta(self, head: tuple[bytes, bytes], audio: bytes) -> None:
        """Write one delta of audio. Joined by hand: benchmarks send thousands in a second."""
        before, after = head
        number = b"%08x" % next(self._count)
        data = b"".join((before, number, after, b2a_base64(audio, newline=False), b'"}'))
        self._record.note(self._delta_kind, data, sent=True)
        self._wire.send(data)

    def write(self, kind: str, data: bytes) -> None:
        """Write one frame as it is."""
        self._record.note(kind, data, sent=True)
        self._wire.send(data)

    def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        self._wire.close(code, reason)
