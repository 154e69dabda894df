"""What a service's refusal means, whichever service it is: whether it lasts, and how long to wait. Pure."""

from __future__ import annotations

import re
from typing import Final

LASTING: Final = frozenset(
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_model",
        "missing_model",
        "model_load_error",
        "model_not_found",
        "permission_denied",
        "token_refused",
    }
)
"""Codes of a key, account, quota, permission or model that is refused: no other session fares better."""

_WAIT: Final = re.compile(
    r"(?:try again|retry[- ]after|retry|wait)\W+(?:(?:in|after|for|at least)\W+)*"
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?)?\b",
    re.IGNORECASE,
)


PASSING: Final = frozenset(
    {
        "429",
        "500",
        "502",
        "503",
        "504",
        "connect",
        "internal_error",
        "overloaded",
        "overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_error",
        "server_overloaded",
        "service_unavailable",
        "session_expired",
        "session_limit_reached",
        "too_many_requests",
    }
)
"""Codes and types of refusals that may be over in a moment: the same is tried again while time allows."""

LONGEST_WAIT_S: Final = 10.0
"""No caller waits longer for the next try, whatever the service asks for."""


def retry_after_s(text: str) -> float | None:
    """Return how long a service's text asks to wait, in seconds; None if it does not say."""
    match = _WAIT.search(text)
    if match is None:
        return None
    unit = (match[2] or "").lower()
    factor = 0.001 if unit.startswith(("ms", "mill")) else 60.0 if unit.startswith("m") else 1.0
    return float(match[1]) * factor
