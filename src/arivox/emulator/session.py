"""What every emulated session offers, whatever its protocol: to the socket it sits on, and to the behaviour
that decides what its AI says; and what it, and they, need of the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from arivox.audio.format import AudioFormat
from arivox.emulator.answer import Answer
from arivox.emulator.record import Record
from arivox.emulator.timers import Timers


class Wire(Protocol):
    """What a session needs of its socket."""

    def send(self, data: bytes, *, binary: bool = False) -> None:
        """Write one frame; never blocks."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Write a close frame; nothing can be sent after it."""
        ...

    def abort(self) -> None:
        """Reset the TCP connection."""
        ...


class Line(Wire, Protocol):
    """What a behaviour needs of its session's socket: who came, what passed, and the faults of a line."""

    query: dict[str, str]
    headers: dict[str, str]
    """The headers of the upgrade request, names in lower case."""
    record: Record
    ended: asyncio.Event
    """Set when the socket is gone and the behaviour has stopped."""
    close_code: int | None
    """What the client's close frame said (1005 when it held no code); None while there is none."""

    def stall(self) -> None:
        """Hold back every frame until ``resume``, as a service does that hangs."""
        ...

    def resume(self) -> None:
        """Send what was held, and go on."""
        ...

    def stop_reading(self) -> None:
        """Leave the client's bytes in the socket, so that its own send buffer fills."""
        ...

    def resume_reading(self) -> None:
        """Read again."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """The upgrade request of a connection. The names in ``headers`` are in lower case."""

    path: str
    """Without the query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Turn(Protocol):
    """One turn of the caller, as the session keeps it."""

    audio: bytearray

    @property
    def id(self) -> str:
        """Return what the turn is known by."""
        ...

    @property
    def audio_format(self) -> AudioFormat | None:
        """Return the format of the audio; None for a turn that was typed."""
        ...

    @property
    def text(self) -> str:
        """Return its words, as far as they are known."""
        ...


class Session(Protocol):
    """One emulated session. Pure: frames and time in, frames out by its ``Wire``."""

    record: Record
    timers: Timers
    closed: bool

    # The socket's side.

    def open(self, now: float) -> None:
        """Begin, once the socket is open. A session that is refused closes itself here."""
        ...

    def receive_text(self, data: bytes, now: float) -> None:
        """Take one text frame."""
        ...

    def receive_binary(self, data: bytes, now: float) -> None:
        """Take one binary frame."""
        ...

    def tick(self, now: float) -> None:
        """Do what is due."""
        ...

    def lost(self) -> None:
        """Take note that the socket is gone."""
        ...

    # The behaviour's side.

    @property
    def instructions(self) -> str:
        """Return what the AI is told at present."""
        ...

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the JSON schema of the parameters of each tool, by its name."""
        ...

    @property
    def input_format(self) -> AudioFormat:
        """Return the format in which the caller's audio comes."""
        ...

    @property
    def output_format(self) -> AudioFormat:
        """Return the format in which answers are spoken."""
        ...

    @property
    def received_ms(self) -> float:
        """Return the length of all audio that ever came."""
        ...

    @property
    def active(self) -> Answer | None:
        """Return the answer in progress."""
        ...

    @property
    def responses(self) -> Sequence[Answer]:
        """Return every answer, the newest last."""
        ...

    @property
    def last_turn(self) -> Turn | None:
        """Return the caller's turn, if it is what stands last in the conversation."""
        ...

    @property
    def last_output(self) -> str:
        """Return what the client said a tool's result is, if that is what stands last; else nothing."""
        ...

    def create_response(self) -> Answer:
        """Begin an answer and return it; the behaviour is not asked. Raises ProtocolError if one runs."""
        ...

    def speech_started(self, now: float) -> object:
        """Find that the caller speaks; this interrupts the answer in progress."""
        ...

    def speech_stopped(self, now: float) -> Turn:
        """Find that the caller's turn is over; an answer is wanted then."""
        ...

    def transcribed(self, turn: Any, transcript: str) -> None:
        """Send the transcript of what the caller said."""
        ...

    def write(self, kind: str, data: bytes) -> None:
        """Write one frame as it is, right or wrong."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket."""
        ...
