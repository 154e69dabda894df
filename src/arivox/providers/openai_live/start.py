"""What a session is started with, and what it can be started without. Pure."""

from __future__ import annotations

from typing import Final

from arivox.providers.base import Brief
from arivox.providers.openai_live.errors import OptionalPart
from arivox.providers.openai_live.protocol import session_start
from arivox.settings.settings import Settings

_SHARES: Final = {1.0: 0.25, 0.25: 0.0}  # of the history, one after the other


class Start:
    """The start of one session; ``law`` is that of the call's G.711.

    Instructions, tools and the backend model are always in it: without them the agent could not do its work.
    """

    def __init__(self, settings: Settings, law: str, brief: Brief) -> None:
        self._settings = settings
        self._law = law
        self._brief = brief
        self._voice = settings.openai_voice_id
        self._share = 1.0 if brief.history else 0.0

    def message(self) -> bytes:
        """Return ``session.start``. Raises ProviderError when the instructions are too long."""
        models = self._settings.openai_live_model, self._settings.openai_live_backend_model
        return session_start(models[0], self._law, self._voice, models[1], self._brief, history=self._share)

    def leave_out(self, part: OptionalPart | None) -> str:
        """Leave a part out that is refused. Return what it is, for people; empty when there is nothing to."""
        if part == "voice" and self._voice:
            voice, self._voice = self._voice, ""
            return f"OPENAI_VOICE_ID ({voice})"
        if part == "history" and self._share:
            self._share = _SHARES[self._share]
            return "the older part of what was said" if self._share else "what was said before"
        return ""
