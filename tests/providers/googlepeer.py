"""A Gemini Live whose every message is the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

READY: dict[str, Any] = {"setupComplete": {}}
DONE: dict[str, Any] = {"serverContent": {"generationComplete": True, "turnComplete": True}}


def content(**fields: Any) -> dict[str, Any]:
    """Return ``serverContent``."""
    return {"serverContent": fields}


def sound(ms: int = 100) -> dict[str, Any]:
    """Return a piece of the agent's voice."""
    data = base64.b64encode(b"\x00\x10" * (24 * ms)).decode()
    part = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": data}}
    return content(modelTurn={"parts": [part]})


def caller_said(text: str) -> dict[str, Any]:
    return content(inputTranscription={"text": text})


def agent_said(text: str) -> dict[str, Any]:
    return content(outputTranscription={"text": text})


def handle(name: str) -> dict[str, Any]:
    """Return a handle to take the session up."""
    return {"sessionResumptionUpdate": {"newHandle": name, "resumable": True}}


def tool_call(call_id: str, name: str = "move_to_state") -> dict[str, Any]:
    return {"toolCall": {"functionCalls": [{"id": call_id, "name": name, "args": {}}]}}


@dataclass
class Peer:
    """The service's end of one connection."""

    socket: ServerConnection
    number: int
    peers: list[Peer]
    """All connections, this one and those before it."""
    got: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.socket.send(json.dumps(message).encode())

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    def abort(self) -> None:
        self.socket.transport.abort()

    @property
    def open(self) -> bool:
        """Return whether the connection is open."""
        return self.socket.state is State.OPEN

    @property
    def setup(self) -> dict[str, Any]:
        return dict(self.got[0]["setup"])

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return what came under a top-level key."""
        return [message[kind] for message in self.got if kind in message]

    @property
    def asked(self) -> list[str]:
        """Return what was asked for as typed text."""
        return [one["text"] for one in self.of("realtimeInput") if "text" in one]

    @property
    def audio(self) -> bytes:
        """Return all of the caller's audio."""
        parts = [one["audio"]["data"] for one in self.of("realtimeInput") if "audio" in one]
        return b"".join(map(base64.b64decode, parts))

    async def until(self, there: Callable[[], Any]) -> None:
        """Wait until what has come makes ``there`` true."""
        async with asyncio.timeout(5):
            while not there():
                self.news.clear()
                await self.news.wait()


Behaviour = Callable[[Peer], Awaitable[None]]


class Google:
    """The service: ``behave`` is run for each connection once its set-up has come."""

    def __init__(self, behave: Behaviour) -> None:
        self.peers: list[Peer] = []
        self.url = ""
        self._behave = behave
        self._news = asyncio.Event()

    async def peer(self, number: int) -> Peer:
        """Return the ``number``-th connection, from 1, once it is set up."""
        async with asyncio.timeout(8):
            while len([peer for peer in self.peers if peer.got]) < number:
                self._news.clear()
                await self._news.wait()
        return self.peers[number - 1]

    async def serve(self, socket: ServerConnection) -> None:
        peer = Peer(socket, len(self.peers) + 1, self.peers)
        self.peers.append(peer)
        behaving: asyncio.Task[None] | None = None
        try:
            async for data in socket:
                peer.got.append(json.loads(data))
                peer.news.set()
                self._news.set()
                if behaving is None:
                    behaving = asyncio.ensure_future(self._run(peer))
        except ConnectionClosed:
            pass
        finally:
            if behaving is not None:
                behaving.cancel()

    async def _run(self, peer: Peer) -> None:
        try:
            await self._behave(peer)
        except ConnectionClosed:
            pass


@asynccontextmanager
async def google(behave: Behaviour) -> AsyncIterator[Google]:
    """Yield the service."""
    made = Google(behave)
    async with serve(made.serve, "127.0.0.1", 0, compression=None) as server:
        made.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        yield made


async def ready(peer: Peer) -> None:
    """Take the session, and do nothing else."""
    await peer.send(READY)
