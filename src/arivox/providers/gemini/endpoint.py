"""Where Gemini Live is reached, and by what right: an API key, a token for one session, a service account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from arivox.errors import ProviderError, SettingsError
from arivox.providers.gemini.models import Backend, traits_of
from arivox.providers.gemini.protocol import PROVIDER, SetupOptions
from arivox.settings.settings import Settings

_STUDIO: Final = (
    "wss://generativelanguage.googleapis.com/ws/"
    "google.ai.generativelanguage.{version}.GenerativeService.{method}"
)
_VERTEX: Final = "wss://{host}/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent"
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_PREFIX: Final = "auth_tokens/"  # noqa: S105 - what such a token begins with, not one
_TOKEN_USE_S: Final = 60
_MULTI_REGIONS: Final = frozenset({"us", "eu"})
# One thread of their own: calls that begin together share one refresh, and a server that does not answer must
# not take the threads that everybody looks up names with.
_refreshing: Final = ThreadPoolExecutor(1, "google-token")


def auth_of(settings: Settings) -> str:
    """Return ``key``, ``token`` or ``vertex``."""
    if settings.gemini_auth != "auto":
        return settings.gemini_auth
    if settings.gemini_api_key or settings.gemini_live_url or not settings.gemini_project_id:
        return "key"
    return "vertex"


def backend_of(settings: Settings) -> Backend:
    """Return which of Google's two services it is."""
    return "vertex" if auth_of(settings) == "vertex" else "studio"


def check(settings: Settings) -> None:
    """Raise SettingsError unless the settings suffice to open a session."""
    auth = auth_of(settings)
    if auth == "vertex":
        _check_vertex(settings)
    elif not settings.gemini_api_key and (auth == "token" or _is_google(settings.gemini_live_url)):
        raise SettingsError(
            "GEMINI_API_KEY",
            "is not set",
            "Put the key of AI Studio into .env, or set GEMINI_PROJECT_ID and "
            "GOOGLE_APPLICATION_CREDENTIALS for Vertex AI, or try without any: make demo PROVIDER=gemini.",
        )


def _check_vertex(settings: Settings) -> None:
    if not settings.gemini_project_id:
        raise SettingsError("GEMINI_PROJECT_ID", "is not set", "Vertex AI needs the id of your project.")
    file = settings.google_application_credentials
    if file is not None and not file.is_file():
        raise SettingsError("GOOGLE_APPLICATION_CREDENTIALS", f"{file}: no such file")
    _credentials(file)


def _is_google(url: str) -> bool:
    return not url or (urlsplit(url).hostname or "").endswith("googleapis.com")


def model_name(settings: Settings) -> str:
    """Return the model as the set-up names it."""
    model = settings.gemini_model_name
    if "/" in model:
        return model
    if backend_of(settings) == "studio":
        return f"models/{model}"
    place = f"projects/{settings.gemini_project_id}/locations/{settings.gemini_location}"
    return f"{place}/publishers/google/models/{model}"


def setup_options(settings: Settings) -> SetupOptions:
    """Return the set-up of a session."""
    return SetupOptions(
        model=model_name(settings),
        backend=backend_of(settings),
        voice=settings.gemini_voice_id,
        language=settings.gemini_language,
        thinking_level=settings.gemini_thinking_level,
        start_sensitivity=settings.gemini_vad_start_sensitivity,
        end_sensitivity=settings.gemini_vad_end_sensitivity,
        prefix_padding_ms=settings.gemini_vad_prefix_padding_ms,
        silence_duration_ms=settings.gemini_vad_silence_duration_ms,
    )


class Endpoint:
    """Where and how one service's sessions are opened."""

    def __init__(self, settings: Settings) -> None:
        self.auth = auth_of(settings)
        self._settings = settings

    async def open(self) -> tuple[str, dict[str, str]]:
        """Return the address and the headers of the next connection, with a fresh token.

        Raises ProviderError.
        """
        settings = self._settings
        key = settings.gemini_api_key
        if self.auth == "vertex":
            token, billed = await _access_token(
                settings.google_application_credentials, settings.provider_connect_timeout_s
            )
            headers = {"Authorization": f"Bearer {token}"}
            return self._url(), headers | ({"x-goog-user-project": billed} if billed else {})
        if self.auth == "token" and not key.startswith(_TOKEN_PREFIX):
            key = await _mint(settings)
        if key.startswith(_TOKEN_PREFIX):
            return self._url(constrained=True), {"Authorization": f"Token {key}"}
        # In a header, for addresses end up in logs.
        return self._url(), {"x-goog-api-key": key} if key else {}

    def _url(self, *, constrained: bool = False) -> str:
        settings = self._settings
        if settings.gemini_live_url:
            return settings.gemini_live_url
        if self.auth == "vertex":
            return _VERTEX.format(host=_vertex_host(settings.gemini_location))
        version = "v1alpha" if constrained else traits_of(settings.gemini_model_name).version
        method = "BidiGenerateContentConstrained" if constrained else "BidiGenerateContent"
        return _STUDIO.format(version=version, method=method)


def _vertex_host(location: str) -> str:
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


# --- a token for one session ---


_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Minted(msgspec.Struct):
    name: str


async def _mint(settings: Settings) -> str:
    # Good for opening one session soon; how long it may talk is limited by the connection itself.
    until = datetime.now(UTC) + timedelta(seconds=_TOKEN_USE_S)
    body = {"uses": 1, "newSessionExpireTime": until.isoformat(timespec="seconds").replace("+00:00", "Z")}
    timeout = aiohttp.ClientTimeout(total=settings.provider_connect_timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.post(
                settings.gemini_token_url, json=body, headers={"x-goog-api-key": settings.gemini_api_key}
            ) as answer,
        ):
            data = await answer.read()
            if answer.status != 200:
                raise _refused(answer.status, data)
            return msgspec.json.decode(data, type=_Minted).name
    except (aiohttp.ClientError, TimeoutError, *_UNREADABLE) as error:
        # The text of the library's error may hold the request; the address is ours to name.
        problem = f"no token from GEMINI_TOKEN_URL ({type(error).__name__})"
        raise ProviderError(PROVIDER, problem, code="connect") from None


class _Refusal(msgspec.Struct):
    error: dict[str, Any] = {}


def _refused(status: int, data: bytes) -> ProviderError:
    try:
        text = str(msgspec.json.decode(data, type=_Refusal).error.get("message", ""))
    except _UNREADABLE:
        text = ""
    code = "invalid_api_key" if "api key" in text.lower() else str(status)
    return ProviderError(PROVIDER, f"no token: {text or f'HTTP {status}'}", code=code)


# --- a service account ---


@lru_cache(maxsize=8)
def _credentials(file: Path | None) -> Any:
    """Return the credentials, one for the process: they keep their token until it expires."""
    try:
        import google.auth
        from google.auth import exceptions
        from google.oauth2 import service_account
    except ImportError as error:
        raise SettingsError(
            "GEMINI_AUTH", "Vertex AI needs google-auth", "Install the extra: pip install 'arivox[vertex]'"
        ) from error
    try:
        if file is not None:
            make: Any = service_account.Credentials.from_service_account_file  # untyped
            return make(str(file), scopes=[_SCOPE])
        return google.auth.default(scopes=[_SCOPE])[0]
    except (OSError, ValueError, exceptions.GoogleAuthError) as error:
        where = "GOOGLE_APPLICATION_CREDENTIALS"
        raise SettingsError(where, f"cannot be used: {type(error).__name__}", str(error)) from error


async def _access_token(file: Path | None, timeout_s: float) -> tuple[str, str]:
    """Return a valid access token, and the project that is billed, if the credentials name one.

    Refreshing blocks, so it is done in a thread.
    """
    from google.auth import exceptions  # checked before the first call

    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(_refreshing, _fresh_token, file, timeout_s)
    except SettingsError as error:
        raise ProviderError(PROVIDER, str(error), code="credentials") from None
    except exceptions.TransportError as error:
        raise ProviderError(PROVIDER, f"no access token: {error}", code="connect") from None
    except exceptions.GoogleAuthError as error:
        retryable = bool(getattr(error, "retryable", False))
        text = f"Google refuses the service account: {error.args[0] if error.args else error}"
        raise ProviderError(PROVIDER, text, code="connect" if retryable else "credentials") from None


def _fresh_token(file: Path | None, timeout_s: float) -> tuple[str, str]:
    from google.auth.transport.requests import Request

    credentials = _credentials(file)
    if not credentials.valid:
        # The library's own patience is two minutes.
        request: Callable[..., Any] = partial(Request(), timeout=timeout_s)
        credentials.refresh(request)
    return str(credentials.token), str(getattr(credentials, "quota_project_id", None) or "")
