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


def retry_after_s(text: str) -> float | None:
    """Return how long a service's text asks to wait, in seconds; None if it does not say."""
    match = _WAIT.search(text)
    if match is None:
        return None
    unit = (match[2] or "").lower()
    factor = 0.001 if unit.startswith(("ms", "mill")) else 60.0 if unit.startswith("m") else 1.0
    return float(match[1]) * factor
