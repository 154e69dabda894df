"""Who may open a session: by which path, with which key or token, and how the service refuses.

A bad token at Vertex is refused at the upgrade. AI Studio takes the connection and closes it on the setup.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from arivox.emulator.gemini.credentials import EphemeralToken, TokenStore, denied
from arivox.emulator.gemini.messages import RefusedError
from arivox.emulator.gemini.models import Backend
from arivox.emulator.session import Request

STUDIO_PATH: Final = "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"
CONSTRAINED_PATH: Final = STUDIO_PATH + "Constrained"
VERTEX_PATH: Final = "/ws/google.cloud.aiplatform.{version}.LlmBidiService/BidiGenerateContent"

_STUDIO = re.compile(
    r"/ws/google\.ai\.generativelanguage\.(?P<version>v1|v1beta|v1alpha)\.GenerativeService"
    r"\.BidiGenerateContent(?P<constrained>Constrained)?"
)
_VERTEX = re.compile(
    r"/ws/google\.cloud\.aiplatform\.(?P<version>v1|v1beta1)\.LlmBidiService/BidiGenerateContent"
)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a session came in."""

    backend: Backend = "studio"
    version: str = "v1beta"
    refusal: RefusedError | None = None
    """What answers the setup, when the session is not let in."""
    token: EphemeralToken | None = None


def serves(path: str) -> bool:
    """Return whether a path is one of the protocol's."""
    return bool(_STUDIO.fullmatch(path) or _VERTEX.fullmatch(path))


def admit(request: Request, api_keys: Collection[str] | None, tokens: TokenStore) -> Entrance | int:
    """Return how a request comes in, or the HTTP status that refuses it.

    ``api_keys`` None takes any key and any token that was not made here, and at AI Studio none as well.
    """
    found = _VERTEX.fullmatch(request.path)
    if found:
        return _vertex(request, found["version"], api_keys, tokens)
    found = _STUDIO.fullmatch(request.path)
    if not found:
        return HTTPStatus.NOT_FOUND
    if found["constrained"]:
        return _constrained(request, found["version"], api_keys, tokens)
    key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
    refusal = None
    if api_keys is not None and key not in api_keys:
        refusal = RefusedError("API key not valid. Please pass a valid API key.")
    return Entrance("studio", found["version"], refusal)


def _constrained(
    request: Request, version: str, api_keys: Collection[str] | None, tokens: TokenStore
) -> Entrance:
    scheme, _, name = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "token":
        name = request.query.get("access_token", "")
    token = tokens.ephemeral.get(name.strip())
    if token is None and (api_keys is not None or not name.strip().startswith("auth_tokens/")):
        return Entrance("studio", version, denied("the token is not known."))
    return Entrance("studio", version, token=token)


def _vertex(
    request: Request, version: str, api_keys: Collection[str] | None, tokens: TokenStore
) -> Entrance | int:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-goog-api-key", "")
    if not given or not (api_keys is None or given in api_keys or tokens.accepts(given)):
        return HTTPStatus.UNAUTHORIZED
    return Entrance("vertex", version)
