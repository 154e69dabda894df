"""Where tokens come from: Google's ephemeral tokens and its OAuth tokens, over HTTP on a loopback port."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from datetime import datetime
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from arivox.emulator.gemini.credentials import ACCESS_S, TokenStore
from arivox.emulator.gemini.messages import Object, RefusedError, convert, normalise

_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LONGEST_S: Final = 20 * 3600.0
_AUDIENCE: Final = "https://oauth2.googleapis.com/token"  # what google-auth puts in, wherever it sends it
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class _Asked(Object):
    uses: int = 1
    expire_time: str | None = None
    new_session_expire_time: str | None = None
    bidi_generate_content_setup: dict[str, Any] | None = None
    field_mask: str | None = None


class TokenServer:
    """Serves ``POST /{version}/auth_tokens`` and ``POST /token`` until its block ends. ::

    store = TokenStore()
    async with TokenServer(store) as tokens, EmulatorServer(..., gemini=GeminiOptions(tokens=store)):
        ...  # POST to tokens.auth_tokens_url, or tokens.token_url as the token_uri of a key file
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        api_keys: Collection[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: SSLContext | None = None,
    ) -> None:
        """``api_keys`` None lets any key make ephemeral tokens."""
        self.store = store
        self.granted = 0
        """Access tokens given out."""
        self._api_keys = api_keys
        self._host = host
        self._port = port
        self._ssl = ssl_context
        self._runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application()
        application.router.add_post("/{version:v1|v1beta|v1alpha}/auth_tokens", self._mint)
        application.router.add_post("/token", self._grant)
        return application

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self.application())
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._ssl).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return f"{'https' if self._ssl else 'http'}://{self._host}:{self._port}"

    @property
    def auth_tokens_url(self) -> str:
        """Return where ephemeral tokens are made."""
        return f"{self.url}/v1alpha/auth_tokens"

    @property
    def token_url(self) -> str:
        """Return where access tokens are made: the ``token_uri`` of a service account."""
        return f"{self.url}/token"

    async def _mint(self, request: web.Request) -> web.Response:
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        if self._api_keys is not None and key not in self._api_keys:
            return _error("API key not valid. Please pass a valid API key.")
        try:
            asked = convert(normalise(msgspec.json.decode(await request.read() or b"{}")), _Asked, "")
            token = self.store.mint(
                uses=asked.uses,
                expires_at=self._time(asked.expire_time),
                new_session_until=self._time(asked.new_session_expire_time),
                setup=asked.bidi_generate_content_setup,
                mask=asked.field_mask.split(",") if asked.field_mask else None,
            )
        except RefusedError as exc:
            return _error(exc.reason)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            return _error(f"Invalid JSON payload received. {exc}")
        return web.json_response({"name": token.name})

    def _time(self, text: str | None) -> float | None:
        if text is None:
            return None
        when = datetime.fromisoformat(text).timestamp()
        if when > self.store.clock() + _LONGEST_S:
            raise ValueError("a token lasts less than 20 hours")
        return when

    async def _grant(self, request: web.Request) -> web.Response:
        form = await request.post()
        problem = ""
        if form.get("grant_type") != _JWT_BEARER:
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        claims = _claims(str(form.get("assertion", "")))
        if claims is None:
            problem = "Invalid JWT: Token must be a JWT."
        elif not claims.get("iss") or claims.get("aud") not in {str(request.url), _AUDIENCE}:
            problem = "Invalid JWT: issuer or audience."
        elif _SCOPE not in str(claims.get("scope", "")).split():
            problem = "Invalid JWT: scope."
        elif float(claims.get("exp", 0)) < self.store.clock():
            problem = "Invalid JWT: it has expired."
        if problem:
            return web.json_response({"error": "invalid_grant", "error_description": problem}, status=400)
        self.granted += 1
        return web.json_response(
            {"access_token": self.store.grant(), "expires_in": ACCESS_S, "token_type": "Bearer"}
        )


def _claims(assertion: str) -> dict[str, Any] | None:
    parts = assertion.split(".")
    if len(parts) != 3:
        return None
    text = parts[1] + "=" * (-len(parts[1]) % 4)
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=dict[str, Any])
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _error(message: str) -> web.Response:
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}
    return web.json_response({"error": error}, status=400)
