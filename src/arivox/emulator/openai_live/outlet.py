"""The way out of a Live session: encodes and writes the server's events."""

from __future__ import annotations

from binascii import b2a_base64
from typing import Any, Final, Literal

from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai.outlet import Outlet
from arivox.emulator.record import Record
from arivox.emulator.session import Wire

Direction = Literal["input", "output"]
_DELTA: Final = "session.output_audio.delta"


class LiveOutlet(Outlet):
    """Writes events in the shapes of Live: they differ from Realtime's in audio, errors and answers."""

    def __init__(self, wire: Wire, record: Record) -> None:
        super().__init__(wire, record, beta=False)
        self._begun: set[Direction] = set()

    def answer(self, to: str | None, type_: str, **fields: Any) -> None:
        """Write the event ``type_`` that answers the client's event with the id ``to``."""
        if to is not None:
            fields["client_event_id"] = to
        self.emit(type_, **fields)

    def error(self, error: RequestError) -> None:
        """Write an ``error`` event."""
        shown = error.as_error()
        shown["client_event_id"] = shown.pop("event_id")
        self.emit("error", error={key: value for key, value in shown.items() if value is not None})

    def words(self, direction: Direction, delta: str, start_ms: int, end_ms: int, *, apart: bool) -> None:
        """Write the next words of the transcript of one direction; ``apart`` from those before them.

        Clients append one delta to the other, so what stands apart begins with a space.
        """
        if apart and direction in self._begun:
            delta = f" {delta}"
        self._begun.add(direction)
        self.emit(f"session.{direction}_transcript.delta", delta=delta, start_ms=start_ms, end_ms=end_ms)

    def write_audio(self, frame: bytes) -> None:
        """Write what ``audio_frame`` made."""
        self.write(_DELTA, frame)


def audio_frame(audio: bytes) -> bytes:
    """Return the event with one delta of audio, which carries neither number nor time.

    Joined by hand: benchmarks send thousands in a second.
    """
    return b"".join(
        (b'{"type":"session.output_audio.delta","delta":"', b2a_base64(audio, newline=False), b'"}')
    )
