"""Which of OpenAI's errors end a call, which are reported, and which are harmless races."""

from __future__ import annotations

import pytest

from arivox.providers.openai.protocol import ErrorBody, add_usage

FATAL = [
    ("invalid_request_error", "session_expired"),
    ("invalid_request_error", "invalid_api_key"),
    ("invalid_request_error", "beta_api_shape_disabled"),
    ("invalid_request_error", "missing_model"),
    ("invalid_request_error", "invalid_model"),
    ("invalid_request_error", "model_not_found"),
    ("insufficient_quota", "insufficient_quota"),
    ("insufficient_quota", None),
    ("invalid_request_error", "credit_balance_exhausted"),
    ("invalid_request_error", "account_deactivated"),
    ("authentication_error", None),
    ("server_error", "session_limit_reached"),
    ("server_error", "model_load_error"),
]
NOT_FATAL = [
    ("invalid_request_error", "invalid_value"),
    ("invalid_request_error", "unknown_parameter"),
    ("invalid_request_error", "invalid_event"),
    ("invalid_request_error", "invalid_json"),
    ("invalid_request_error", None),
    ("server_error", None),
    ("server_error", "server_error"),
    ("rate_limit_error", "rate_limit_exceeded"),
    ("", None),
]
BENIGN = [
    "response_cancel_not_active",
    "item_truncate_invalid_item_id",
    "conversation_already_has_active_response",
    "input_audio_buffer_commit_empty",
]


@pytest.mark.parametrize(("kind", "code"), FATAL)
def test_fatal(kind: str, code: str | None) -> None:
    body = ErrorBody(type=kind, code=code, message="No.")
    error = body.as_provider_error()
    assert error.fatal
    assert not body.benign
    assert (error.provider, error.message, error.code) == ("openai", "No.", code or kind)


@pytest.mark.parametrize(("kind", "code"), NOT_FATAL)
def test_not_fatal(kind: str, code: str | None) -> None:
    body = ErrorBody(type=kind, code=code, message="No.")
    assert not body.as_provider_error().fatal
    assert not body.benign, "it is reported"


@pytest.mark.parametrize("code", BENIGN)
def test_races_are_harmless(code: str) -> None:
    body = ErrorBody(type="invalid_request_error", code=code, message="x")
    assert body.benign
    assert not body.as_provider_error().fatal


def test_truncating_more_than_there_is_is_harmless() -> None:
    text = "Audio content of 960ms is already shorter than 1000ms"
    assert ErrorBody(type="invalid_request_error", code="invalid_value", message=text).benign


def test_text_names_the_parameter_and_is_never_empty() -> None:
    error = ErrorBody(code="invalid_value", message="Bad voice", param="session.audio.output.voice")
    assert str(error.as_provider_error()) == "openai [invalid_value]: Bad voice (session.audio.output.voice)"
    assert str(ErrorBody().as_provider_error()) == "openai: an error without text"


def test_usage_adds_up() -> None:
    total: dict[str, int] = {}
    usage = {
        "total_tokens": 30,
        "input_token_details": {"audio_tokens": 20, "cached_tokens_details": {"text": 1}},
        "kind": "tokens",
        "seconds": 1.5,
        "flag": True,
        "nothing": None,
    }
    add_usage(total, usage)
    add_usage(total, usage)
    assert total == {
        "total_tokens": 60,
        "input_token_details.audio_tokens": 40,
        "input_token_details.cached_tokens_details.text": 2,
    }
