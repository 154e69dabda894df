"""OpenAI Realtime as a service of the emulators' server."""

from __future__ import annotations

from collections.abc import Callable, Collection

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai.admission import admit
from arivox.emulator.openai.session import OpenAISession, Options
from arivox.emulator.record import Record
from arivox.emulator.session import Request, Wire


class RealtimeService:
    """``/v1/realtime``. ``api_keys`` None takes any key or none, ``models`` None any model."""

    def __init__(
        self, api_keys: Collection[str] | None, models: Collection[str] | None, options: Options
    ) -> None:
        self.api_keys = api_keys
        self.models = models
        self.options = options

    def serves(self, path: str) -> bool:
        """Return whether ``path`` is the one of Realtime."""
        return path == "/v1/realtime"

    def open(
        self,
        request: Request,
        behaviour: Behaviour,
        wire: Wire,
        record: Record,
        wake: Callable[[float], None],
    ) -> OpenAISession:
        """Return a session; the service refuses only after the upgrade."""
        refusal = admit(
            request.query,
            request.headers,
            api_keys=self.api_keys,
            models=self.models,
            beta=self.options.beta,
        )
        return OpenAISession(
            behaviour,
            wire,
            record,
            wake,
            model=request.query.get("model", ""),
            options=self.options,
            refusal=refusal,
        )

    def subprotocol(self, request: Request) -> str | None:
        """Return ``realtime`` where a browser offers it."""
        offered = request.headers.get("sec-websocket-protocol", "").split(",")
        return "realtime" if "realtime" in [name.strip() for name in offered] else None
