"""OpenAI Live as a service of the emulators' server."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai.admission import Refusal, admit
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai_live.options import LiveOptions
from arivox.emulator.openai_live.session import BAD_REQUEST_CLOSE, LiveSession
from arivox.emulator.record import Record
from arivox.emulator.session import Request, Wire

PATH: Final = "/v1/live/sessions"


class LiveService:
    """``/v1/live/sessions``. ``api_keys`` None takes any key or none."""

    def __init__(self, api_keys: Collection[str] | None, options: LiveOptions) -> None:
        self.api_keys = api_keys
        self.options = options

    def serves(self, path: str) -> bool:
        """Return whether ``path`` is the one of Live."""
        return path == PATH

    def open(
        self,
        request: Request,
        behaviour: Behaviour,
        wire: Wire,
        record: Record,
        wake: Callable[[float], None],
    ) -> LiveSession:
        """Return a session; the service refuses only after the upgrade."""
        return LiveSession(
            behaviour, wire, record, wake, options=self.options, refusal=self._refusal(request)
        )

    def subprotocol(self, request: Request) -> str | None:
        """Return None: there is none to agree on."""
        del request
        return None

    def _refusal(self, request: Request) -> Refusal | None:
        # The model comes in session.start; any will do here.
        refusal = admit({"model": "any"}, request.headers, api_keys=self.api_keys, models=None, beta=False)
        if refusal is None and request.query:
            name = next(iter(request.query))
            message = f"Unknown query parameter: '{name}'. A Live session is configured by session.start."
            error = RequestError("unknown_parameter", message, param=name)
            refusal = Refusal(error, BAD_REQUEST_CLOSE)
        return refusal
