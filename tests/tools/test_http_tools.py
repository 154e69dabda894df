"""HTTP endpoints as tools, against a real server: what is sent, and what an answer becomes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from arivox.conversation.endpoint import Endpoint
from arivox.conversation.field import Field
from arivox.conversation.tools.http import of_endpoint
from arivox.tools import CallInfo, ToolError

CALL = CallInfo("c1", "ch1", "555", "700", "menu", {"pizza": "Funghi"}, {"pin": "1234"})


class Shop:
    """Answers with ``status`` and ``body``, and keeps what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.authorization = ""
        self.status = 200
        self.body = b'{"ok": true}'
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.seen.append((request.method, request.raw_path, dict(request.query), text))
        self.authorization = request.headers.get("Authorization", "")
        headers = {"Location": f"{self.url}/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, body=self.body, headers=headers)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", shop.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert server is not None
    shop.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield shop
    await runner.cleanup()


async def use(endpoint: Endpoint, **values: Any) -> Any:
    async with aiohttp.ClientSession() as client:
        tool = of_endpoint(endpoint, lambda: client)
        return await tool.work(CALL, tool.read(values))


async def test_values_go_where_they_are_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    endpoint = Endpoint(
        "status",
        "Say where it is.",
        shop.url + "/orders/{order}?key=${SHOP_TOKEN}",
        "POST",
        {"order": Field("order")},
        query={"what": "{pizza}"},
        headers={"Authorization": "Bearer ${SHOP_TOKEN}"},
        body={"pin": "{pin}", "order": "{order}"},
    )
    assert await use(endpoint, order="a/b?c=1&d") == {"ok": True}
    ((method, path, query, body),) = shop.seen
    assert method == "POST"
    assert path.startswith("/orders/a%2Fb%3Fc%3D1%26d?")
    assert query == {"key": "s3cret", "what": "Funghi"}
    assert body == '{"pin": "1234", "order": "a/b?c=1&d"}'
    assert shop.authorization == "Bearer s3cret"
    assert "s3cret" not in repr(endpoint)


async def test_caller_cannot_name_a_variable_of_the_environment(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    endpoint = Endpoint(
        "x", "X", shop.url + "/{order}", parameters={"order": Field("order")}, query={"q": "{order}"}
    )
    await use(endpoint, order="${SHOP_TOKEN}")
    ((_, path, query, _),) = shop.seen
    assert "s3cret" not in path
    assert query == {"q": "${SHOP_TOKEN}"}


@pytest.mark.parametrize(("method", "sent"), [("GET", ""), ("DELETE", ""), ("PUT", '{"order": "7"}')])
async def test_arguments_are_the_body_where_there_is_one(shop: Shop, method: Any, sent: str) -> None:
    await use(Endpoint("x", "X", shop.url, method, {"order": Field("order")}), order="7")
    assert shop.seen[0][3] == sent


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [(200, b"", None), (204, b"", None), (200, b"in the oven", "in the oven"), (201, b"[1]", [1])],
)
async def test_answer_is_json_or_text(shop: Shop, status: int, body: bytes, found: Any) -> None:
    shop.status, shop.body = status, body
    assert await use(Endpoint("x", "X", shop.url)) == found


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (404, b"no such order", "the service answered HTTP 404: no such order"),
        (500, b"", "the service answered HTTP 500:"),
        (302, b"", "the service answered HTTP 302:"),
        (200, b"x" * 70_000, "the service's answer is longer than 65536 bytes"),
    ],
)
async def test_refusal_is_told(shop: Shop, status: int, body: bytes, problem: str) -> None:
    shop.status, shop.body = status, body
    with pytest.raises(ToolError, match=problem):
        await use(Endpoint("x", "X", shop.url))
    assert len(shop.seen) == 1, "no redirect is followed"


async def test_service_that_is_away_is_told_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    with structlog.testing.capture_logs() as log, pytest.raises(ToolError) as caught:
        await use(Endpoint("x", "X", "http://127.0.0.1:1/?key=${SHOP_TOKEN}"))
    assert str(caught.value) == "the service cannot be reached"
    assert "s3cret" not in str(log)
    assert log[0]["tool"] == "x"


async def test_value_that_is_not_known_yet_is_told(shop: Shop) -> None:
    with pytest.raises(ToolError, match="size is not known yet"):
        await use(Endpoint("x", "X", shop.url, query={"size": "{size}"}))
    assert shop.seen == []


def test_unset_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    endpoint = Endpoint("x", "X", "https://h/${NOT_SET}", headers={"A": "${NOT_SET}"})
    assert endpoint.unset() == ["NOT_SET"]
