from __future__ import annotations

import pytest

from arivox.providers.refusal import retry_after_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached for gpt-realtime. Please try again in 3 s.", 3.0),
        ("Limit 40000, Used 39500. Please try again in 1.25s. Visit the page", 1.25),
        ("Please try again in 850ms.", 0.85),
        ("Please retry in 12.5 seconds", 12.5),
        ("retry after 2 minutes", 120.0),
        ("Retry-After: 7", 7.0),
        ("try again in 1m", 60.0),
        ("try again later", None),
        ("The server had an error", None),
        ("", None),
    ],
)
def test_a_service_says_how_long_to_wait(text: str, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds
