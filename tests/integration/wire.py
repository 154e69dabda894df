"""A TCP wire to Asterisk's HTTP server that can be cut."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from rig import Rig, until

from arivox.testing.asterisk import AsteriskInstance

LOST = "Asterisk closed the events connection"
UNHEARD = "a request to Asterisk failed; trying again"
UNREACHABLE = "cannot reach Asterisk's ARI; trying again"


class Wire:
    """Such a wire; an async context manager."""

    def __init__(self, asterisk: AsteriskInstance) -> None:
        self._target = urlsplit(asterisk.ari_url)
        self._whole = True
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.refused = 0
        """Connections that were made while it was cut."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.drop()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where Asterisk seems to answer."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def drop(self) -> None:
        """Break every connection; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        """Break every connection, and every new one."""
        self._whole = False
        self.drop()

    def freeze(self) -> None:
        """Lose what comes from now on, as a network does that tells neither end."""
        self._thawed.clear()

    def mend(self) -> None:
        """Break what was frozen, and take connections again."""
        if not self._thawed.is_set():
            self.drop()
            self._thawed.set()
        self._whole = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not self._whole:
            self.refused += 1
            writer.transport.abort()
            return
        onward_reader, onward = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(self._copy(reader, onward), self._copy(onward_reader, writer))
        finally:
            self._writers -= {writer, onward}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._thawed.wait()
                if writer.is_closing():
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # cut
        finally:
            writer.transport.abort()


async def cut_off(rig: Rig, wire: Wire) -> None:
    """Cut the wire, and wait until the service knows, and has tried in vain to connect again."""
    wire.cut()
    await until(lambda: bool(rig.logged(UNREACHABLE)), "the loss of the events connection")


async def mend(rig: Rig, wire: Wire) -> None:
    """Mend the wire, and wait until the service is back."""
    wire.mend()
    await until(rig.service.switchboard.connected.is_set, "the reconnect", timeout=8)
