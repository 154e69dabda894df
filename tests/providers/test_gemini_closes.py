"""What a close of Gemini Live means in mid-call, and as the answer to a set-up."""

from __future__ import annotations

import pytest

from arivox.providers.gemini.closes import closed, refused
from arivox.providers.refusal import LASTING

INVALID = "Request contains an invalid argument."
NOT_FOUND = "models/x is not found for API version v1beta, or is not supported for bidiGenerateContent."
QUOTA = "You exceeded your current quota, please check your plan"

# In mid-call: code, reason, name, remedy.
CLOSES = [
    (1000, "", "1000", "go on"),
    (1001, "going away", "1001", "go on"),
    (1002, "Protocol error", "1002", "go on"),
    (1005, "", "1005", "go on"),
    (1006, "", "1006", "go on"),
    (1007, INVALID, "invalid_argument", "go on"),
    (1007, "API key not valid. Please pass a valid API key.", "invalid_api_key", "give up"),
    (1007, "API key expired. Please renew the API key.", "invalid_api_key", "give up"),
    (1008, NOT_FOUND, "model_not_found", "give up"),
    (1008, "Publisher Model `projects/p/x` was not found.", "model_not_found", "give up"),
    (1008, "Operation is not implemented, or supported, or enabled.", "1008", "go on"),
    (1008, "BidiGenerateContent session expired", "session_expired", "new"),
    (1008, "BidiGenerateContent session not found", "session_not_found", "new"),
    (1008, "Permission denied on resource project x.", "permission_denied", "give up"),
    (1008, "Permission 'aiplatform.endpoints.predict' denied on resource", "permission_denied", "give up"),
    (1008, "The caller does not have permission", "permission_denied", "give up"),
    (1008, "The user was asked for permission to record", "1008", "go on"),
    (1008, "The caller does not have permission: the token has expired.", "token_expired", "go on"),
    (1009, "Message too big", "1009", "go on"),
    (1011, "Internal error encountered.", "1011", "go on"),
    (1011, QUOTA, "insufficient_quota", "give up"),
    (1011, f"{QUOTA}. Please retry in 3.5s.", "429", "go on"),
    (1011, "The service is currently unavailable.", "1011", "go on"),
    (4000, "a code of next year", "4000", "go on"),
]


@pytest.mark.parametrize(("code", "reason", "name", "remedy"), CLOSES)
def test_close_in_mid_call_is_understood_by_its_text(code: int, reason: str, name: str, remedy: str) -> None:
    meaning = closed(code, reason)
    assert (meaning.error.code, meaning.remedy) == (name, remedy)
    assert reason in str(meaning.error)
    assert (remedy == "give up") == (name in LASTING)


def test_only_what_was_sent_trips_again() -> None:
    assert closed(1007, INVALID).tripped
    assert not closed(1008, "Operation is not implemented, or supported, or enabled.").tripped


@pytest.mark.parametrize(
    ("code", "reason", "name"),
    [
        (1001, "", "connect"),
        (1006, "", "connect"),
        (1011, "Internal error encountered.", "connect"),
        (4000, "", "connect"),
        (1008, "The service is temporarily overloaded", "connect"),
        (1007, "Resource has been exhausted (e.g. check quota).", "connect"),
        (1011, f"{QUOTA}. Please retry in 3.5s.", "connect"),
        (1008, "Too many requests, try again in 2 s", "connect"),
        (1007, INVALID, "invalid_argument"),
        (1008, "Operation is not implemented, or supported, or enabled.", "1008"),
        (1008, "session not found", "session_not_found"),
        (1008, NOT_FOUND, "model_not_found"),
        (1011, QUOTA, "insufficient_quota"),
        (1007, "API key not valid. Please pass a valid API key.", "invalid_api_key"),
        (1008, "The caller does not have permission: the token is not known.", "permission_denied"),
    ],
)
def test_set_up_that_is_refused_is_tried_again_if_that_may_help(code: int, reason: str, name: str) -> None:
    assert refused(code, reason).code == name


@pytest.mark.parametrize("meaning", [closed, refused])
def test_wait_that_the_service_asks_for_is_read(meaning: object) -> None:
    assert callable(meaning)
    told = meaning(1011, "Too many sessions, please retry in 3.5s.")
    error = getattr(told, "error", told)
    assert error.retry_after_s == 3.5
