"""What the server asks of each protocol."""

from __future__ import annotations

from typing import Any, Protocol

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.record import Record
from arivox.emulator.session import Request, Session, Wire


class Service(Protocol):
    """One protocol of the server: its paths, and who may open a session."""

    def serves(self, path: str) -> bool:
        """Return whether a path (without its query) is one of this protocol."""
        ...

    def open(
        self, request: Request, behaviour: Behaviour, wire: Wire, record: Record, wake: Any
    ) -> Session | int:
        """Return a session, which may refuse by itself once it is open, or an HTTP status that refuses."""
        ...

    def subprotocol(self, request: Request) -> str | None:
        """Return the WebSocket subprotocol to agree on."""
        ...
