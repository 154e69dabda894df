"""The errors of OpenAI Live: which of them end a session, last, or ask for patience. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from arivox.errors import ProviderError
from arivox.providers.openai.protocol import ErrorBody
from arivox.providers.refusal import LASTING, retry_after_s

PROVIDER: Final = "openai-live"

OptionalPart = Literal["voice", "history"]
"""What a session can be started without: it speaks with another voice, or knows less of the past."""

# Errors after which there is no session any more.
_ENDS: Final = frozenset({"session_expired", "session_limit_reached"})
# The service's own failures, by code or type: it may fare better in a moment.
_FAILURES: Final = frozenset(
    {
        "api_error",
        "internal_error",
        "internal_server_error",
        "overloaded",
        "overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "requests",
        "server_error",
        "server_overloaded",
        "service_unavailable",
        "slow_down",
        "timeout",
        "tokens",
        "too_many_requests",
    }
)
_WITHHELD: Final = re.compile(r"policy|content_filter|moderation|invalid_prompt|safety")
_TOO_LONG: Final = re.compile(r"max_length|too_long|too_large")
_VOICE: Final = re.compile(r"\bvoice\b|session\.audio\.output\b")
_HISTORY: Final = re.compile(r"session\.input\b(?!_)")

_REASONS: Final = {
    "expired": "the session has lasted as long as it may",
    "content": "the session was ended for what was said in it",
    "connection_lost": "the service lost the connection",
    "remote_hangup": "the service hung up",
    "close_requested": "somebody else has closed the session",
}


class Error(ErrorBody, frozen=True):
    """The body of an error: as in OpenAI Realtime, under our name."""

    client_event_id: str | None = None

    @property
    def lasts(self) -> bool:
        """Return whether it is of a key, account, quota, permission or model that is refused."""
        return self._lasting != ""

    @property
    def failure(self) -> bool:
        """Return whether the service itself failed, or was asked too much: it may fare better in a moment."""
        return not self.lasts and (self.code in _FAILURES or self.type in _FAILURES)

    @property
    def rejected(self) -> bool:
        """Return whether something was withheld for what is in it."""
        return _WITHHELD.search(self.code or "") is not None

    @property
    def too_long(self) -> bool:
        """Return whether a text was longer than the service takes."""
        return not self.failure and _TOO_LONG.search(self.code or "") is not None

    def as_provider_error(self) -> ProviderError:
        """Return it as our exception, told apart as fatal, and as the end of this session only."""
        ends = self.code in _ENDS or self.type in _ENDS
        return ProviderError(
            PROVIDER,
            self._text,
            code=self._lasting or self.code or self.type or "",
            fatal=self.lasts or ends,
            lost=ends and not self.lasts,
            retry_after_s=retry_after_s(self.message or ""),
            rejected=self.rejected,
        )

    def as_refusal(self) -> ProviderError:
        """Return it as our exception where it refuses a session; by its code it is asked for again or not."""
        error = self.as_provider_error()
        error.fatal = True  # whatever it was: there is no session
        error.lost = False
        if not self.lasts and (self.failure or self.code in _ENDS or self.type in _ENDS):
            # As of a connection that could not be had.
            error.message = f"{error.message} [{error.code}]"
            error.code = "connect"
        return error

    @property
    def optional_part(self) -> OptionalPart | None:
        """Return the part of ``session.start`` that is refused, if a session can do without."""
        if self.lasts or self.failure:
            return None
        # The documentation's own example of a parameter is ``session.voice``, which does not exist.
        where = self.param or self.message or ""
        if _HISTORY.search(where):
            return "history"
        return "voice" if _VOICE.search(where) else None

    @property
    def _lasting(self) -> str:
        codes = (self.code, self.type)
        known = next((code for code in codes if code is not None and code in LASTING), "")
        return known or (self.code or self.type or "" if self.type == "authentication_error" else "")

    @property
    def _text(self) -> str:
        text = self.message or "an error without text"
        return f"{text} ({self.param})" if self.param else text


class ErrorMessage(msgspec.Struct, frozen=True):
    """``error``."""

    error: Error
    client_event_id: str | None = None

    @property
    def refused(self) -> str:
        """Return the id of the event of ours that is refused; empty when it is none, or not told."""
        return self.error.client_event_id or self.client_event_id or ""


def ended(reason: str | None) -> ProviderError:
    """Return what ``session.closed`` says for a session that was started: another follows it."""
    text = _REASONS.get(reason or "", f"the session was ended ({reason or 'no reason given'})")
    return ProviderError(
        PROVIDER, text, code=reason or "closed", lost=reason not in LASTING, rejected=reason == "content"
    )
