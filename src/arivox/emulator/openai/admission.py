"""Who may open a session, and how the service refuses: 101, one ``error`` event, then a close."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from arivox.emulator.openai.messages import RequestError

MODELS: Final = frozenset(
    {
        "gpt-realtime-2.1",
        "gpt-realtime-2.1-mini",
        "gpt-realtime-2",
        "gpt-realtime-1.5",
        "gpt-realtime",
        "gpt-realtime-mini",
    }
)
_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_BAD_KEY_CLOSE: Final = 3000
_BAD_REQUEST_CLOSE: Final = 4000


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ``error`` event and the close code after it."""

    error: RequestError
    close_code: int


def admit(
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    api_keys: Collection[str] | None,
    models: Collection[str] | None,
    beta: bool,
) -> Refusal | None:
    """Return why the connection is refused, or None.

    The names in ``headers`` are in lower case. ``api_keys`` None takes any key or none, ``models`` None any
    model, and so does the beta, which other servers speak, with models of their own.
    """
    key = _key(headers)
    if api_keys is not None and key not in api_keys:
        # The service repeats part of the key here; a log has no use for it.
        message = (
            "Incorrect API key provided. You can find your API key at "
            "https://platform.openai.com/account/api-keys."
        )
        return Refusal(RequestError("invalid_api_key", message), _BAD_KEY_CLOSE)
    if not beta and "realtime=v1" in headers.get("openai-beta", ""):
        message = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
        return Refusal(RequestError("beta_api_shape_disabled", message), _BAD_REQUEST_CLOSE)
    model = query.get("model", "")
    if not model:
        return Refusal(
            RequestError("missing_model", "You must provide a model parameter.", param="model"),
            _BAD_REQUEST_CLOSE,
        )
    if models is not None and not beta and model not in models:
        message = f'Model "{model}" is not supported in realtime mode.'
        return Refusal(RequestError("invalid_model", message, param="model"), _BAD_REQUEST_CLOSE)
    return None


def _key(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    for name in headers.get("sec-websocket-protocol", "").split(","):
        if name.strip().startswith(_KEY_PROTOCOL):
            return name.strip().removeprefix(_KEY_PROTOCOL)
    return headers.get("api-key", "")
