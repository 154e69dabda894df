"""What it means when Gemini Live closes a connection, or refuses a set-up. Pure.

The text says more than the code (Live API reference, close codes). A session that was set up goes on over
another connection, whatever the code; only a key, account, quota, permission or model refused is final.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from arivox.errors import ProviderError
from arivox.providers.gemini.protocol import PROVIDER
from arivox.providers.refusal import retry_after_s

Remedy = Literal["go on", "new", "give up"]

INVALID: Final = 1007
POLICY: Final = 1008
HANDLE_GONE: Final = frozenset({"session_expired", "session_not_found"})


class Closed(msgspec.Struct, frozen=True):
    """Why the service closed a connection, and what may help.

    ``go on`` with the latest handle, begin a ``new`` session, or ``give up``.
    """

    error: ProviderError
    remedy: Remedy
    code: int = 1006

    @property
    def tripped(self) -> bool:
        """Return whether it was what we sent, by what the service says: sent again it would do it again."""
        return self.code == INVALID


class SetupRefusedError(ProviderError):
    """The service took the connection, and did not take the session."""


def _pattern(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE | re.DOTALL)


# The first that is found counts. A word alone says little: "permission" may be the caller's.
_REASONS: Final[tuple[tuple[re.Pattern[str], str, Remedy], ...]] = (
    (
        _pattern(
            r"api[ _]key (?:is )?(?:not valid|not found|invalid|expired)",
            r"(?:valid|invalid) api[ _]key",
            r"api[ _]key was reported",
            r"api_key_invalid",
        ),
        "invalid_api_key",
        "give up",
    ),
    (
        _pattern(
            r"not supported for bidigeneratecontent",
            r"is not found for api version",
            r"publisher model.{0,200}(?:not found|no access|not have access)",
            r"\bmodels?[ /]\S+ (?:is |was )?(?:not found|no longer available)",
            r"\bmodel (?:is |was )?not found",
        ),
        "model_not_found",
        "give up",
    ),
    (_pattern(r"session (?:has )?expired"), "session_expired", "new"),
    (_pattern(r"session (?:was )?not found"), "session_not_found", "new"),
    # The next connection is made with another one, where there is another.
    (_pattern(r"token (?:has |is )?expired"), "token_expired", "go on"),
    (_pattern(r"exceeded your current quota", r"insufficient[ _]quota"), "insufficient_quota", "give up"),
    (
        _pattern(
            r"\bbilling\b.{0,60}(?:disabled|not (?:enabled|configured|active|found))",
            r"credits? (?:are|is|have been) (?:depleted|exhausted)",
        ),
        "credit_balance_exhausted",
        "give up",
    ),
    (
        _pattern(
            r"permission.{0,100}denied",
            r"permission_denied",
            r"do(?:es)? not have (?:the )?(?:\S+ )?permission",
            r"consumer.{0,60}suspended",
            r"\bapi\b.{0,80}(?:has not been used|is disabled)",
        ),
        "permission_denied",
        "give up",
    ),
    (_pattern(r"project-scoped features"), "token_refused", "give up"),
)
# A set-up that is refused with one of these is wrong, unless the text speaks of the moment.
_WRONG: Final = frozenset({INVALID, POLICY, 1002, 1003, 1009, 1010})
_PASSING: Final = _pattern(
    r"try again",
    r"temporar",
    r"unavailable",
    r"overloaded",
    r"exhausted",
    r"too many",
    r"rate limit",
    r"deadline",
    r"timed? ?out",
    r"internal error",
)


def closed(code: int, reason: str) -> Closed:
    """Return what it means that a session which was set up is closed with ``code`` and ``reason``."""
    said = f"the server closed the connection (code {code}{': ' + reason if reason else ''})"
    wait_s = retry_after_s(reason)
    name = "invalid_argument" if code == INVALID else str(code)
    remedy: Remedy = "go on"
    for pattern, its_name, its_remedy in _REASONS:
        if pattern.search(reason):
            name, remedy = its_name, its_remedy
            break
    if remedy == "give up" and wait_s is not None:
        name, remedy = "429", "go on"  # a quota of the minute
    error = ProviderError(PROVIDER, said, code=name, fatal=True, retry_after_s=wait_s)
    return Closed(error, remedy, code)


def refused(code: int, reason: str) -> SetupRefusedError:
    """Return what it means that a set-up is answered with a close: ``connect`` if another try may succeed."""
    meaning = closed(code, reason)
    error = meaning.error
    name = error.code
    if meaning.remedy == "go on":
        wrong = code in _WRONG and name != "429" and not _PASSING.search(reason)
        name = name if wrong else "connect"
    return SetupRefusedError(PROVIDER, error.message, code=name, retry_after_s=error.retry_after_s)
