"""HTTP endpoints as tools, against a real server: what is sent, and what an answer becomes."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
import structlog
from aiohttp import web

from arivox.conversation.endpoint import Endpoint
from arivox.conversation.field import Field
from arivox.conversation.tools.box import ToolBox
from arivox.conversation.tools.calendar import Calendar
from arivox.conversation.tools.http import of_endpoint
from arivox.tools import CallInfo, ToolError

SECRET = "73915826"  # long enough that no port and no time happens to hold it
CALL = CallInfo("c1", "ch1", "555", "700", "menu", {"pizza": "Funghi"}, {"pin": SECRET})


class Shop:
    """Answers with ``status`` and ``body``, and keeps what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.authorization = ""
        self.cookies: dict[str, str] = {}
        self.status = 200
        self.body = b'{"ok": true}'
        self.headers: dict[str, str] = {}
        self.url = ""
        self.endless = False
        self.left = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.seen.append((request.method, request.raw_path, dict(request.query), text))
        self.authorization = request.headers.get("Authorization", "")
        self.cookies = dict(request.cookies)
        if self.endless:
            return await self._talk_on(request)
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    async def _talk_on(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            while True:
                await response.write(self.body)
                await asyncio.sleep(0.001)
        finally:
            self.left.set()


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
    assert body == f'{{"pin": "{SECRET}", "order": "a/b?c=1&d"}}'
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
        (301, b"", "the service answered HTTP 301:"),
        (302, b"", "the service answered HTTP 302:"),
        (307, b"", "the service answered HTTP 307:"),
        (308, b"", "the service answered HTTP 308:"),
        (200, b"x" * 70_000, "the service's answer is longer than 65536 bytes"),
    ],
)
async def test_refusal_is_told(shop: Shop, status: int, body: bytes, problem: str) -> None:
    shop.status, shop.body = status, body
    shop.headers = {"Location": f"{shop.url}/elsewhere"} if 300 <= status < 400 else {}
    with pytest.raises(ToolError, match=problem):
        await use(Endpoint("x", "X", shop.url))
    assert len(shop.seen) == 1, "no redirect is followed"


@pytest.mark.parametrize(
    "said",
    [
        "../admin",
        "..;/admin",
        "%2e%2e",
        "a/../../b",
        "?admin=1",
        "#x",
        "a&admin=1",
        "a=1;admin=1",
        "@127.0.0.1:1",
        "\\admin",
        "${SHOP_TOKEN}",
        "{pin}",
        "{SHOP_TOKEN}",
        "%24%7BSHOP_TOKEN%7D",
        "größe €",
        "a+b",
        "a b",
        "\x00\x7f",
        "x HTTP/1.1",
    ],
)
async def test_what_a_caller_says_stays_where_it_was_put(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    endpoint = Endpoint(
        "x",
        "X",
        shop.url + "/orders/{order}/status?key=${SHOP_TOKEN}&of={order}",
        "POST",
        {"order": Field("order")},
        query={"q": "{order}"},
        body={"b": "{order}"},
    )
    await use(endpoint, order=said)
    ((_, path, query, body),) = shop.seen
    assert query == {"key": "s3cret", "of": said, "q": said}
    assert json.loads(body) == {"b": said}
    before, _, rest = path.partition("/orders/")[2].partition("/status?")
    assert (unquote(before), "/" in before, "?" in before, "#" in before) == (said, False, False, False)
    assert rest.count("s3cret") == 1


@pytest.mark.parametrize("said", [".", "..", "..."])
async def test_caller_cannot_go_up_in_a_path(shop: Shop, said: str) -> None:
    endpoint = Endpoint("x", "X", shop.url + "/orders/{order}/status", parameters={"order": Field("order")})
    with pytest.raises(ToolError, match=rf"^order cannot be '{re.escape(said)}'$"):
        await use(endpoint, order=said)
    assert shop.seen == []


@pytest.mark.parametrize("url", ["/${{order}}", "/$%7B{order}}", "/${A-{order}}"])
async def test_caller_cannot_complete_the_name_of_a_variable(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    endpoint = Endpoint("x", "X", shop.url + url, parameters={"order": Field("order")})
    await use(endpoint, order="SHOP_TOKEN")
    assert "s3cret" not in shop.seen[0][1]


async def test_placeholders_in_variables_of_the_environment_are_left(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "a{pin}")
    monkeypatch.setenv("SHOP_TOKEN", "b{pin}${SHOP_KEY}")
    endpoint = Endpoint("x", "X", shop.url + "/?k=${SHOP_KEY}", headers={"Authorization": "${SHOP_TOKEN}"})
    await use(endpoint)
    assert shop.seen[0][2] == {"k": "a{pin}"}
    assert shop.authorization == "b{pin}${SHOP_KEY}"


async def test_whole_address_may_be_a_variable(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", shop.url + "/api v1/größe")
    await use(Endpoint("x", "X", "${SHOP}/straße/{pizza}", query={"a": "1"}))
    assert unquote(shop.seen[0][1]) == "/api v1/größe/straße/Funghi?a=1"


async def test_secret_comes_before_what_is_shown_of_it(shop: Shop) -> None:
    call = CallInfo("c1", "ch1", "555", "700", "menu", {"pin": "(hidden)"}, {"pin": SECRET})
    async with aiohttp.ClientSession() as client:
        await of_endpoint(Endpoint("x", "X", shop.url, query={"p": "{pin}"}), lambda: client).work(call, {})
    assert shop.seen[0][2] == {"p": SECRET}


@pytest.mark.parametrize("given", [{}, {"note": None}, {"note": ""}, {"note": "hot"}])
async def test_optional_value_that_is_not_given_is_left_out(shop: Shop, given: dict[str, Any]) -> None:
    endpoint = Endpoint(
        "x",
        "X",
        shop.url,
        "POST",
        {"note": Field("note", required=False)},
        query={"n": "{note}", "a": "1"},
        body={"n": "for {note}", "p": "{pizza}"},
    )
    await use(endpoint, **given)
    ((_, _, query, body),) = shop.seen
    noted = given.get("note") == "hot"
    assert query == ({"n": "hot", "a": "1"} if noted else {"a": "1"})
    assert json.loads(body) == ({"n": "for hot", "p": "Funghi"} if noted else {"p": "Funghi"})


async def test_unknown_arguments_are_refused_before_anything_is_asked() -> None:
    tool = of_endpoint(Endpoint("x", "X", "http://127.0.0.1:1", parameters={"a": Field("a")}), lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="'pin' is not asked for"):
        tool.read({"a": "1", "pin": "9"})


async def test_refusal_that_repeats_secrets_is_told_without_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    shop.status = 404
    shop.body = f"no such order: /?key=s3cret&pin={SECRET} {'x' * 470}s3cret{'y' * 500}".encode()
    endpoint = Endpoint("x", "X", shop.url + "/?key=${SHOP_TOKEN}", query={"pin": "{pin}"})
    with structlog.testing.capture_logs() as log, pytest.raises(ToolError) as caught:
        await use(endpoint)
    told = str(caught.value)
    assert "no such order: /?key=***&pin=***" in told
    assert len(told) < 550
    for secret in ("s3c", SECRET):
        assert secret not in told
        assert secret not in str(log)


async def test_answer_without_end_is_broken_off(shop: Shop) -> None:
    shop.endless, shop.body = True, b"x" * 10_000
    with pytest.raises(ToolError, match="longer than 65536 bytes"):
        await use(Endpoint("x", "X", shop.url))
    async with asyncio.timeout(5):
        await shop.left.wait()


async def test_answer_that_trickles_is_given_up(shop: Shop) -> None:
    shop.endless, shop.body = True, b"x"
    with pytest.raises(TimeoutError):
        await use(Endpoint("x", "X", shop.url, timeout_s=0.05))
    if shop.seen:  # a busy machine may give up before it has asked
        async with asyncio.timeout(5):
            await shop.left.wait()


async def test_small_answer_that_unpacks_to_a_large_one_is_too_long(shop: Shop) -> None:
    shop.body, shop.headers = gzip.compress(b"x" * 50_000_000), {"Content-Encoding": "gzip"}
    with pytest.raises(ToolError, match="longer than 65536 bytes"):
        await use(Endpoint("x", "X", shop.url))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"x" * 65_536, "x" * 65_536),
        (b"[" * 60_000, "[" * 60_000),
        (b"[NaN]", "[NaN]"),
        (b'{"a": 1', '{"a": 1'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'"\\ud800"', '"\\ud800"'),
        (b" \n", None),
        (b"null", None),
    ],
)
async def test_odd_answer_is_told_as_text(shop: Shop, body: bytes, found: Any) -> None:
    shop.body = body
    assert await use(Endpoint("x", "X", shop.url)) == found


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_server_that_speaks_no_http_is_told_as_away(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?key=${{SHOP_TOKEN}}"
        with structlog.testing.capture_logs() as log, pytest.raises(ToolError) as caught:
            await use(Endpoint("x", "X", url))
    assert str(caught.value) == "the service cannot be reached"
    assert "s3cret" not in str(log)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("x", "X", "${SHOP_TOKEN}"),
        Endpoint("x", "X", "http://${SHOP_TOKEN}:port/"),
        Endpoint("x", "X", "http://[${SHOP_TOKEN}/"),
        Endpoint("x", "X", "ftp://${SHOP_TOKEN}/"),
        Endpoint("x", "X", "http://127.0.0.1:1", headers={"Authorization": "${SHOP_TOKEN}\r\nX: y"}),
        Endpoint("x", "X", "http://127.0.0.1:1/${SHOP_TOKEN}/${NOT_SET}"),
        Endpoint("x", "X", "http://127.0.0.1:1/${SHOP_TOKEN}", headers={"Authorization": "${NOT_SET}"}),
    ],
)
async def test_request_that_cannot_be_made_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    monkeypatch.delenv("NOT_SET", raising=False)
    with structlog.testing.capture_logs() as log, pytest.raises(ToolError) as caught:
        await use(endpoint)
    assert str(caught.value) == "the service cannot be reached"
    assert len(log) == 1
    assert "s3cret" not in str(log)


async def test_cookies_of_one_caller_are_not_sent_for_another(shop: Shop) -> None:
    shop.headers = {"Set-Cookie": "session=of-the-first; Path=/"}
    box = ToolBox(None, Calendar(":memory:"))
    # By name: cookies of an address are never kept.
    endpoint = Endpoint("x", "X", shop.url.replace("127.0.0.1", "localhost"))
    tool = box.with_endpoints({"x": endpoint})["x"]
    for _ in range(2):
        await tool.work(CALL, {})
    await box.close()
    assert (len(shop.seen), shop.cookies) == (2, {})


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
    monkeypatch.setenv("NOT_SET", "")
    assert endpoint.unset() == ["NOT_SET"], "an empty key is none"
    monkeypatch.setenv("NOT_SET", "x")
    assert endpoint.unset() == []
