"""The provider's socket, against a peer that answers pings late or never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from arivox.providers.socket import ProviderSocket


class Peer(WSListener):
    """Keeps count of the pings, and answers none by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.transport: WSTransport | None = None
        self.pinged = asyncio.Event()
        self.pings = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            self.pings += 1
            self.pinged.set()

    def say(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, data)


@asynccontextmanager
async def connected(pong_wait_s: float) -> AsyncIterator[tuple[Peer, asyncio.Future[int], list[bytes]]]:
    """Yield the peer, the code with which the connection is lost, and what came."""
    peer = Peer()
    lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    came: list[bytes] = []
    server = await ws_create_server(lambda _: peer, "127.0.0.1", 0, enable_auto_pong=False)
    try:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        socket = await ProviderSocket.open(
            "x",
            url,
            {},
            lambda data: came.append(bytes(data)),
            lambda code, _: lost.set_result(code),
            timeout_s=5,
            pong_wait_s=pong_wait_s,
        )
        yield peer, lost, came
        await socket.close()
    finally:
        server.close()


async def test_peer_that_answers_no_ping_is_gone() -> None:
    async with connected(0.2) as (peer, lost, _):
        assert await asyncio.wait_for(lost, 5) == 1006
        assert peer.pings == 1


async def test_peer_that_says_something_is_there() -> None:
    """Some services send a pong half a minute late, and speak on meanwhile."""
    async with connected(0.5) as (peer, lost, came):
        for _ in range(2):
            await asyncio.wait_for(peer.pinged.wait(), 5)
            peer.pinged.clear()
            peer.say(b"{}")
        assert not lost.done()
        assert came
