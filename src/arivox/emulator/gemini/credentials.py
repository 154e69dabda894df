"""Ephemeral tokens and access tokens, as far as they were made here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from arivox.emulator.gemini.messages import POLICY, RefusedError, invalid

_SESSION_S: Final = 1800.0
_NEW_SESSION_S: Final = 60.0
ACCESS_S: Final = 3599


def denied(why: str) -> RefusedError:
    """Return the refusal of someone who may not do this."""
    return RefusedError(f"The caller does not have permission: {why}", POLICY)


@dataclass(slots=True)
class EphemeralToken:
    """A key for few sessions and a short time. Times are those of the store's clock."""

    name: str = field(repr=False)
    uses: int
    """0: any number."""
    expires_at: float
    """Nothing may be sent after it."""
    new_session_until: float
    setup: dict[str, Any] | None = None
    """What the setups must be, normalised."""
    mask: tuple[str, ...] | None = None
    """The fields of ``setup`` that are fixed, as ``generationConfig.temperature``; None for all."""
    used: int = 0

    def begin(self, setup: dict[str, Any], now: float, *, resumes: bool) -> dict[str, Any]:
        """Return the setup to use in place of a client's; this counts as a use unless it ``resumes``.

        Raises:
            RefusedError: The token is used up or too old, or made for another model.
        """
        if now > self.expires_at or (not resumes and now > self.new_session_until):
            raise denied("the token has expired.")
        if not resumes and self.uses and self.used >= self.uses:
            raise denied("the token is used up.")
        if self.setup is not None:
            model = self.setup.get("model")
            if model is not None and setup.get("model", model) != model:
                raise invalid(f"setup.model: the token is for {model}.")
            setup = self._locked(setup, self.setup)
        if not resumes:
            self.used += 1
        return setup

    def _locked(self, setup: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
        if self.mask is None:
            kept = {"sessionResumption": setup["sessionResumption"]} if "sessionResumption" in setup else {}
            return {**fixed, **kept}
        merged = dict(setup)
        resumption = setup.get("sessionResumption") or {}
        for path in self.mask:
            if path.startswith("sessionResumption") and "handle" in resumption:
                continue  # a handle is new each time: nobody can fix it
            _copy(fixed, merged, path.split("."))
        return merged


def _copy(source: dict[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    name, *rest = path
    if name not in source:
        target.pop(name, None)
    elif rest and isinstance(source[name], dict):
        inner = dict(target.get(name) or {})
        _copy(source[name], inner, rest)
        target[name] = inner
    else:
        target[name] = source[name]


class TokenStore:
    """Every token that was made. Times are seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.ephemeral: dict[str, EphemeralToken] = {}
        self._access: dict[str, float] = {}

    def mint(
        self,
        *,
        uses: int = 1,
        expires_at: float | None = None,
        new_session_until: float | None = None,
        setup: dict[str, Any] | None = None,
        mask: Sequence[str] | None = None,
    ) -> EphemeralToken:
        """Make an ephemeral token."""
        now = self.clock()
        token = EphemeralToken(
            f"auth_tokens/{secrets.token_hex(20)}",
            uses,
            now + _SESSION_S if expires_at is None else expires_at,
            now + _NEW_SESSION_S if new_session_until is None else new_session_until,
            setup,
            None if mask is None else tuple(mask),
        )
        self.ephemeral[token.name] = token
        return token

    def grant(self, seconds: float = ACCESS_S) -> str:
        """Make an access token."""
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self._access[token] = self.clock() + seconds
        return token

    def accepts(self, token: str) -> bool:
        """Return whether ``token`` is an access token that is still good."""
        return self.clock() < self._access.get(token, 0.0)
