"""Gemini Live as a service of the emulators' server."""

from __future__ import annotations

from collections.abc import Callable, Collection

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.gemini import admission
from arivox.emulator.gemini.credentials import TokenStore
from arivox.emulator.gemini.options import GeminiOptions
from arivox.emulator.gemini.resumption import Handles
from arivox.emulator.gemini.session import GeminiSession
from arivox.emulator.record import Record
from arivox.emulator.session import Request, Wire


class GeminiService:
    """Both of Google's backends. ``api_keys`` None takes any key; a session's handles outlive it here."""

    def __init__(
        self,
        api_keys: Collection[str] | None = None,
        options: GeminiOptions = GeminiOptions(),  # noqa: B008 - frozen
    ) -> None:
        self.api_keys = api_keys
        self.options = options
        self.tokens = options.tokens if options.tokens is not None else TokenStore()
        self.handles = Handles()

    def serves(self, path: str) -> bool:
        """Return whether ``path`` is one of AI Studio's or Vertex's."""
        return admission.serves(path)

    def open(
        self,
        request: Request,
        behaviour: Behaviour,
        wire: Wire,
        record: Record,
        wake: Callable[[float], None],
    ) -> GeminiSession | int:
        """Return a session, or the status that refuses the upgrade."""
        entrance = admission.admit(request, self.api_keys, self.tokens)
        if isinstance(entrance, int):
            return entrance
        return GeminiSession(
            behaviour,
            wire,
            record,
            wake,
            entrance=entrance,
            options=self.options,
            handles=self.handles,
            wall_clock=self.tokens.clock,
        )

    def subprotocol(self, request: Request) -> str | None:
        """Return None: there is none."""
        del request
        return None
