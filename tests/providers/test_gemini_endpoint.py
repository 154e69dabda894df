"""Where Gemini is reached, and by what right: keys, tokens for one session, service accounts."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import service_account

from arivox.audio.format import ULAW
from arivox.emulator.gemini import GeminiOptions, TokenServer, TokenStore
from arivox.emulator.script import Script
from arivox.emulator.server import EmulatorServer
from arivox.errors import ProviderError
from arivox.providers.base import Brief, ProviderEvent
from arivox.providers.gemini import endpoint
from arivox.providers.gemini.endpoint import Endpoint, auth_of, model_name
from arivox.providers.gemini.session import GeminiSession
from arivox.settings.settings import Settings
from arivox.testing.ports import free_tcp_port

KEY = "AIza-secret"


def settings(**values: Any) -> Settings:
    return Settings(ai_service_provider="gemini", **values)


STUDIO = "wss://generativelanguage.googleapis.com/ws/google.ai.generativelanguage"


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("gemini-3.8-live", "v1"),
        ("gemini-3.1-flash-live-preview", "v1beta"),
        ("gemini-2.5-flash-native-audio-preview-12-2025", "v1beta"),
    ],
)
async def test_key_goes_into_a_header(model: str, version: str) -> None:
    url, headers = await Endpoint(settings(gemini_api_key=KEY, gemini_model_name=model)).open()
    assert url == f"{STUDIO}.{version}.GenerativeService.BidiGenerateContent"
    assert headers == {"x-goog-api-key": KEY}


async def test_token_in_place_of_a_key() -> None:
    url, headers = await Endpoint(settings(gemini_api_key="auth_tokens/abc")).open()
    assert url == f"{STUDIO}.v1alpha.GenerativeService.BidiGenerateContentConstrained"
    assert headers == {"Authorization": "Token auth_tokens/abc"}


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
    ],
)
async def test_vertex_by_its_location(location: str, host: str, tmp_path: Path) -> None:
    async with TokenServer(TokenStore()) as tokens:
        account = service_account(tmp_path, tokens.token_url)
        given = settings(
            gemini_project_id="p", google_application_credentials=account, gemini_location=location
        )
        url, headers = await Endpoint(given).open()
    assert url == f"wss://{host}/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent"
    assert headers["Authorization"].startswith("Bearer ya29.")
    assert "x-goog-user-project" not in headers, "it needs a right that the role does not have"
    assert model_name(given) == (f"projects/p/locations/{location}/publishers/google/models/gemini-3.8-live")


async def test_address_of_ones_own_is_used_as_it_is() -> None:
    given = settings(gemini_live_url="ws://127.0.0.1:9/x?y=z", gemini_api_key=KEY)
    assert (await Endpoint(given).open())[0] == "ws://127.0.0.1:9/x?y=z"
    assert (await Endpoint(settings(gemini_live_url="ws://127.0.0.1:9")).open())[1] == {}


@pytest.mark.parametrize(
    ("given", "auth"),
    [
        ({}, "key"),
        ({"gemini_api_key": KEY, "gemini_project_id": "p"}, "key"),
        ({"gemini_project_id": "p"}, "vertex"),
        ({"gemini_api_key": KEY, "gemini_project_id": "p", "gemini_auth": "vertex"}, "vertex"),
        ({"gemini_api_key": KEY, "gemini_auth": "token"}, "token"),
    ],
)
def test_way_in_is_found_by_what_is_set(given: dict[str, Any], auth: str) -> None:
    assert auth_of(settings(**given)) == auth


def test_full_name_of_a_model_stays() -> None:
    assert model_name(settings(gemini_model_name="tunedModels/x")) == "tunedModels/x"
    assert model_name(settings(gemini_model_name="gemini-3.8-live")) == "models/gemini-3.8-live"


# --- tokens for one session ---


async def test_each_connection_has_a_token_of_its_own() -> None:
    store = TokenStore()
    async with (
        TokenServer(store, api_keys={KEY}) as tokens,
        EmulatorServer(Script, api_keys=set(), gemini=GeminiOptions(tokens=store)) as server,
    ):
        constrained = server.gemini_url.replace("v1beta", "v1alpha") + "Constrained"
        given = settings(
            gemini_api_key=KEY,
            gemini_auth="token",
            gemini_token_url=tokens.auth_tokens_url,
            gemini_live_url=constrained,
        )
        events: list[ProviderEvent] = []
        for count in (1, 2):
            session = GeminiSession(given, ULAW, events.append)
            await session.connect(Brief("Be brief."))
            await session.close()
            assert len(store.ephemeral) == count
        assert {token.used for token in store.ephemeral.values()} == {1}
        for connection in server.sessions:
            assert KEY not in str(connection.headers) + connection.path
            # It is good for opening one session soon, and for no more.
        soon = [token.new_session_until - time.time() for token in store.ephemeral.values()]
        assert all(0 < seconds <= 61 for seconds in soon)


@pytest.mark.parametrize(("key", "code"), [("wrong", "invalid_api_key"), (KEY, "connect")])
async def test_token_that_is_not_given(key: str, code: str) -> None:
    async with TokenServer(TokenStore(), api_keys={KEY}) as tokens:
        url = tokens.auth_tokens_url if code != "connect" else f"http://127.0.0.1:{free_tcp_port()}/x"
        given = settings(gemini_api_key=key, gemini_auth="token", gemini_token_url=url)
        with pytest.raises(ProviderError) as caught:
            await Endpoint(given).open()
    assert caught.value.code == code
    assert KEY not in f"{caught.value} {caught.value!r}"


# --- service accounts ---


async def test_access_token_is_kept_while_it_is_good(tmp_path: Path) -> None:
    async with TokenServer(TokenStore()) as tokens:
        account = service_account(tmp_path, tokens.token_url)
        given = settings(gemini_project_id="p", google_application_credentials=account)
        found = await asyncio.gather(*(Endpoint(given).open() for _ in range(5)))
        assert len({headers["Authorization"] for _, headers in found}) == 1
        assert tokens.granted == 1, "calls that begin together share one"
        endpoint._credentials(account).expiry = None
        endpoint._credentials(account).token = None
        await Endpoint(given).open()
        assert tokens.granted == 2


async def test_token_is_fetched_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that blocks would stop the audio of every call."""
    where: list[threading.Thread] = []
    fresh = endpoint._fresh_token

    def watched(file: Path | None, timeout_s: float) -> tuple[str, str]:
        where.append(threading.current_thread())
        return fresh(file, timeout_s)

    monkeypatch.setattr(endpoint, "_fresh_token", watched)
    async with TokenServer(TokenStore()) as tokens:
        account = service_account(tmp_path, tokens.token_url)
        await Endpoint(settings(gemini_project_id="p", google_application_credentials=account)).open()
    assert where
    assert where[0] is not threading.main_thread()


async def test_account_that_google_refuses(tmp_path: Path) -> None:
    async with TokenServer(TokenStore(clock=lambda: time.time() + 1e6)) as tokens:
        account = service_account(tmp_path, tokens.token_url)
        with pytest.raises(ProviderError, match="refuses the service account") as caught:
            await Endpoint(settings(gemini_project_id="p", google_application_credentials=account)).open()
    assert (caught.value.code, caught.value.fatal) == ("credentials", True)
    assert "PRIVATE KEY" not in repr(caught.value)


async def test_token_server_that_is_out_of_reach_is_asked_again(tmp_path: Path) -> None:
    account = service_account(tmp_path, f"http://127.0.0.1:{free_tcp_port()}/token")
    given = settings(
        gemini_project_id="p", google_application_credentials=account, provider_connect_timeout_s=1.0
    )
    session = GeminiSession(given, ULAW, lambda event: None)
    begun = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        await session.connect(Brief("x"))
    assert caught.value.code == "timeout"
    assert "no access token" in caught.value.message
    assert time.monotonic() - begun < 3
