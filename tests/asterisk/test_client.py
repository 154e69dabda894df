"""The ARI client, against a real Asterisk and against servers that only pretend to be one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from aiohttp import web

from arivox.asterisk.client import AriClient
from arivox.asterisk.messages import AnyEvent, ApplicationReplaced, StasisEnd, StasisStart
from arivox.errors import AsteriskError, ChannelGoneError, ProtocolError
from arivox.testing import ports
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

APP = "test_client"
REQUESTS: dict[str, Callable[[AriClient], Awaitable[Any]]] = {
    "GET /ari/asterisk/info": lambda ari: ari.version(),
    "GET /ari/asterisk/modules/x.so": lambda ari: ari.has_module("x.so"),
    f"GET /ari/applications/{APP}": lambda ari: ari.application(),
    "GET /ari/channels/c1": lambda ari: ari.channel("c1"),
    "GET /ari/channels/c1/variable": lambda ari: ari.variable("c1", "X"),
    "POST /ari/channels/externalMedia": lambda ari: ari.external_media("m", "127.0.0.1", 9, "ulaw"),
    "POST /ari/bridges/b1": lambda ari: ari.create_bridge("b1"),
}


def client(asterisk: AsteriskInstance, **own: Any) -> AriClient:
    given = {"username": asterisk.ari_user, "password": asterisk.ari_password, "app": asterisk.app} | own
    return AriClient(asterisk.ari_url, **given)


@asynccontextmanager
async def listening(
    ari: AriClient, on_event: Callable[[AnyEvent], None] = lambda _: None
) -> AsyncIterator[asyncio.Queue[float]]:
    """Listen; the queue holds when the connection came up, each time."""
    ups: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(ari.listen(on_event, lambda: ups.put_nowait(time.monotonic())))
    try:
        yield ups
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- a real Asterisk ---


@pytest.mark.asterisk
async def test_what_asterisk_says_of_itself(asterisk: AsteriskInstance) -> None:
    async with client(asterisk) as ari:
        await ari.ping()
        assert await ari.version() == asterisk.version
        assert await ari.has_module("res_stasis.so")
        assert not await ari.has_module("res_none.so")
    for url in (f"{asterisk.ari_url}/", f"{asterisk.ari_url}/ari", f"{asterisk.ari_url}/ari/"):
        async with AriClient(url, asterisk.ari_user, asterisk.ari_password, APP) as ari:
            await ari.ping()


@pytest.mark.asterisk
async def test_application_that_nobody_listens_for_is_gone(asterisk: AsteriskInstance) -> None:
    async with client(asterisk, app="nobody") as ari:
        with pytest.raises(ChannelGoneError) as caught:
            await ari.application()
    assert caught.value.status == 404


async def forgotten(ari: AriClient, channel_id: str) -> None:
    """Wait until Asterisk knows a channel no more, which is a moment after its last event."""
    while True:
        try:
            await ari.channel(channel_id)
        except ChannelGoneError:
            return


@pytest.mark.asterisk
async def test_life_of_a_channel(asterisk: AsteriskInstance) -> None:
    events: asyncio.Queue[AnyEvent] = asyncio.Queue()
    async with (
        SipPhone(("127.0.0.1", asterisk.sip_port), user="5551234") as phone,
        client(asterisk) as ari,
        listening(ari, events.put_nowait) as ups,
        asyncio.timeout(20),
    ):
        await ups.get()
        calling = asyncio.create_task(phone.call("701"))
        start = await events.get()
        assert isinstance(start, StasisStart)
        assert list(start.args) == ["some", "args"]
        channel = start.channel
        assert (channel.state, channel.caller.number, channel.dialplan.exten) == ("Ring", "5551234", "701")
        assert await ari.variable(channel.id, "CALLERID(num)") == "5551234"
        await ari.set_variable(channel.id, "ARIVOX_TEST", "a b&c=d/é")
        assert await ari.variable(channel.id, "ARIVOX_TEST") == "a b&c=d/é"
        assert (await ari.application()).channel_ids == [channel.id]
        await ari.answer(channel.id)
        assert await calling == 200
        assert (await ari.channel(channel.id)).state == "Up"
        await ari.play(channel.id, "tone:dial", "p1")
        await phone.wait_heard()
        await ari.stop_playback("p1")
        await ari.hang_up(channel.id)
        await phone.wait_state("down")
        while not isinstance(await events.get(), StasisEnd):
            pass
        await forgotten(ari, channel.id)
        for request in (
            ari.channel(channel.id),
            ari.variable(channel.id, "X"),
            ari.answer(channel.id),
            ari.play(channel.id, "tone:dial", "p2"),
            ari.continue_in_dialplan(channel.id),
            ari.hang_up(channel.id),
            ari.stop_playback("p1"),
            ari.destroy_bridge("never-made"),
        ):
            with pytest.raises(ChannelGoneError) as caught:
                await request
            assert caught.value.status == 404
            assert caught.value.request.split()[1].startswith("/ari/")


@pytest.mark.asterisk
async def test_variable_that_is_not_set(asterisk: AsteriskInstance) -> None:
    starts: asyncio.Queue[AnyEvent] = asyncio.Queue()
    async with (
        SipPhone(("127.0.0.1", asterisk.sip_port)) as phone,
        client(asterisk) as ari,
        listening(ari, starts.put_nowait) as ups,
        asyncio.timeout(20),
    ):
        await ups.get()
        calling = asyncio.create_task(phone.call("700"))
        start = await starts.get()
        assert isinstance(start, StasisStart)
        try:
            assert await ari.variable(start.channel.id, "NEVER_SET") == ""
        finally:
            await ari.hang_up(start.channel.id)
            await calling


@pytest.mark.asterisk
async def test_media_channel_and_bridge(asterisk: AsteriskInstance) -> None:
    events: asyncio.Queue[AnyEvent] = asyncio.Queue()
    async with (
        client(asterisk, app=APP) as ari,
        listening(ari, events.put_nowait) as ups,
        asyncio.timeout(20),
    ):
        await ups.get()
        media = await ari.external_media("our-media", "127.0.0.1", ports.free_udp_port(), "alaw")
        assert media.id == "our-media"
        assert media.channelvars["UNICASTRTP_LOCAL_ADDRESS"] == "127.0.0.1"
        first, last = asterisk.rtp_range
        assert ports.ASTERISK_RTP[0] <= first < last <= ports.ASTERISK_RTP[1]
        assert first <= int(media.channelvars["UNICASTRTP_LOCAL_PORT"]) <= last
        while not isinstance(await events.get(), StasisStart):
            pass
        bridge = await ari.create_bridge("our-bridge")
        await ari.add_to_bridge(bridge.id, media.id)
        held = await ari.application()
        assert (held.channel_ids, held.bridge_ids) == (["our-media"], ["our-bridge"])
        await ari.destroy_bridge(bridge.id)
        await ari.hang_up(media.id)
        while not isinstance(await events.get(), StasisEnd):
            pass


@pytest.mark.asterisk
async def test_wrong_password(asterisk: AsteriskInstance) -> None:
    async with client(asterisk, password="no-such-password") as ari:
        for request in (ari.ping(), ari.listen(lambda _: None, lambda: None)):
            with pytest.raises(AsteriskError, match="ARI_USERNAME and ARI_PASSWORD") as caught:
                async with asyncio.timeout(5):
                    await request
            assert caught.value.status == 401
            assert "ari.conf" in caught.value.hint
            assert "no-such-password" not in str(caught.value) + repr(ari)


@pytest.mark.asterisk
async def test_another_listener_takes_the_application(asterisk: AsteriskInstance) -> None:
    async with client(asterisk, app=APP) as first, client(asterisk, app=APP) as second:
        up = asyncio.Event()
        losing = asyncio.create_task(first.listen(lambda _: None, up.set))
        async with asyncio.timeout(5):
            await up.wait()
            async with listening(second) as ups:
                await ups.get()
                with pytest.raises(AsteriskError, match=f"application '{APP}' over") as caught:
                    await losing
    assert "ARI_APP_NAME" in caught.value.hint


# --- servers that pretend ---


@asynccontextmanager
async def pretender(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], timeout_s: float = 5.0
) -> AsyncIterator[AriClient]:
    """Yield a client of a server that gives every request to ``answer``."""
    app = web.Application()
    app.router.add_route("*", "/ari/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        port = runner.addresses[0][1]
        async with AriClient(f"http://127.0.0.1:{port}", "user", "hidden", APP, timeout_s=timeout_s) as ari:
            yield ari
    finally:
        await runner.cleanup()


@asynccontextmanager
async def wire(reply: bytes) -> AsyncIterator[AriClient]:
    """Yield a client of a server that answers each request with ``reply`` and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with AriClient(f"http://127.0.0.1:{port}", "user", "hidden", APP, timeout_s=2) as ari:
            yield ari


async def test_slow_server_is_given_up() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with pretender(never, timeout_s=0.3) as ari:

        async def judge(name: str, request: Callable[[AriClient], Awaitable[Any]]) -> None:
            begun = time.monotonic()
            with pytest.raises(AsteriskError, match="no answer in time") as caught:
                await request(ari)
            assert time.monotonic() - begun < 3
            assert caught.value.request == name
            assert caught.value.hint == "ARI_REQUEST_TIMEOUT_S"
            assert str(caught.value).startswith(f"{name}: ")

        await asyncio.gather(*(judge(name, request) for name, request in REQUESTS.items()))


async def test_server_that_stops_in_the_middle_of_a_body() -> None:
    async with wire(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") as ari:
        with pytest.raises(AsteriskError) as caught:
            await ari.version()
    assert caught.value.request == "GET /ari/asterisk/info"


@pytest.mark.parametrize(
    "reply", [b"", b"\x00\xff\xfe", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/9.9 abc\r\n\r\n"], ids=repr
)
async def test_server_that_speaks_no_http(reply: bytes) -> None:
    async with wire(reply) as ari:
        with pytest.raises(AsteriskError, match="Is Asterisk running") as caught:
            await ari.ping()
    assert caught.value.request == "GET /ari/asterisk/ping"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b"\xff\xfe", b"[]", b"null", b'{"id":7,"name":1}'], ids=repr
)
async def test_body_that_is_none_of_aris(body: bytes) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    async with pretender(answer) as ari:
        for name, request in REQUESTS.items():
            if body.startswith(b'{"id"') and ("info" in name or "modules" in name or "variable" in name):
                continue  # a mapping is all that these need
            with pytest.raises(ProtocolError, match="ARI: an answer that cannot be read"):
                await request(ari)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"message":"Allocation failed"}', "Allocation failed"),
        (b'{"error":"Out of memory"}', "Out of memory"),
        (b"<html>503</html>", "<html>503</html>"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"", "refused"),
    ],
    ids=repr,
)
async def test_refusal_tells_what_asterisk_said(body: bytes, text: str) -> None:
    statuses = iter((500, 503, 400, 403, 404, 409, 412, 422))

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=next(statuses), body=body)

    async with pretender(answer) as ari:
        for kind, status in (
            (AsteriskError, 500),
            (AsteriskError, 503),
            (AsteriskError, 400),
            (AsteriskError, 403),
        ):
            with pytest.raises(AsteriskError) as caught:
                await ari.answer("c1")
            assert type(caught.value) is kind
            assert str(caught.value) == f"POST /ari/channels/c1/answer: {text} (HTTP {status})"
        for status in (404, 409, 412, 422):
            with pytest.raises(ChannelGoneError) as gone:
                await ari.answer("c1")
            assert gone.value.status == status


async def test_nobody_listens() -> None:
    async with AriClient(f"http://127.0.0.1:{ports.free_tcp_port()}", "user", "hidden", APP) as ari:
        with pytest.raises(AsteriskError, match=r"ping: cannot connect to .*: Connection refused") as caught:
            await ari.ping()
    assert "hidden" not in str(caught.value)


async def test_credentials_travel_in_a_header_alone() -> None:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.Response(text="{}")

    async with pretender(answer) as ari:
        await ari.ping()
        await ari.set_variable("c1", "X", "a b&c=d/é")
    for request in seen:
        assert request.headers["Authorization"] == "Basic dXNlcjpoaWRkZW4="
        assert "hidden" not in str(request.url)
    assert dict(seen[1].query) == {"variable": "X", "value": "a b&c=d/é"}


START = '{"type":"StasisStart","args":[],"channel":{"id":"%d"}}'


async def test_garbage_on_the_events_socket_is_ignored_and_told() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for garbage in ("", "{", "[]", '{"type":7}', '{"type":"StasisStart"}', "\x00"):
            await socket.send_str(garbage)
        await socket.send_bytes(b"\xff\x00binary")
        await socket.send_str('{"type":"BrandNewEvent","x":1}')
        await socket.send_str(START % 1)
        await asyncio.sleep(60)
        return socket

    events: asyncio.Queue[AnyEvent] = asyncio.Queue()
    with structlog.testing.capture_logs() as log:
        async with pretender(answer) as ari, listening(ari, events.put_nowait), asyncio.timeout(5):
            assert (await events.get()).type == "BrandNewEvent"  # type: ignore[union-attr]
            start = await events.get()
            assert isinstance(start, StasisStart)
            assert start.channel.id == "1"
    ignored = [line for line in log if line["event"] == "an event of Asterisk is ignored"]
    assert len(ignored) == 6
    assert {line["log_level"] for line in ignored} == {"error"}


async def test_events_go_on_after_the_socket_closes() -> None:
    """However it ends: with a code, without one, or reset."""
    count = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(START % count)
        if count == 1:
            await socket.close(code=1001)
        elif count == 2:
            assert request.transport is not None
            request.transport.abort()
        else:
            await asyncio.sleep(60)
        return socket

    events: asyncio.Queue[AnyEvent] = asyncio.Queue()
    with structlog.testing.capture_logs() as log:
        async with pretender(answer) as ari, listening(ari, events.put_nowait) as ups, asyncio.timeout(10):
            for number in (1, 2, 3):
                start = await events.get()
                assert isinstance(start, StasisStart)
                assert start.channel.id == str(number)
            times = [await ups.get() for _ in range(3)]
    assert all(later - earlier >= 0.14 for earlier, later in itertools.pairwise(times)), "not at once"
    closed = [line for line in log if line["event"] == "Asterisk closed the events connection"]
    assert len(closed) == 2


async def test_attempts_to_reconnect_grow_rarer() -> None:
    attempts: list[float] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        attempts.append(time.monotonic())
        if len(attempts) < 5:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await asyncio.sleep(60)
        return socket

    with structlog.testing.capture_logs() as log:
        async with pretender(answer) as ari, listening(ari) as ups, asyncio.timeout(15):
            await ups.get()
    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    # Delays double from 0.2 s, each shortened by up to a quarter.
    for gap, least in zip(gaps, (0.15, 0.3, 0.6, 1.2), strict=True):
        assert gap >= least - 0.01
    told = [line for line in log if line["event"].startswith("cannot reach Asterisk's ARI")]
    assert [line["log_level"] for line in told] == ["error", "debug", "debug", "debug"]
    assert told[0]["error"] == "HTTP 503"


async def test_closing_stops_the_listener() -> None:
    downs = 0

    def down() -> None:
        nonlocal downs
        downs += 1

    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    async with pretender(answer) as ari, asyncio.timeout(5):
        up = asyncio.Event()
        task = asyncio.create_task(ari.listen(lambda _: None, up.set, down))
        await up.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert downs == 1


async def test_replaced_event_names_the_application() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str('{"type":"ApplicationReplaced","application":"test_client"}')
        async for _ in socket:
            pass  # until the client closes
        return socket

    seen: list[AnyEvent] = []
    async with pretender(answer) as ari, asyncio.timeout(5):
        with pytest.raises(AsteriskError, match=f"application '{APP}' over"):
            await ari.listen(seen.append, lambda: None)
    assert not any(isinstance(event, ApplicationReplaced) for event in seen)
