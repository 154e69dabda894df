"""The emulators' WebSocket server: one loopback port for all protocols, a session for each connection.

The protocols are in ``openai`` and its neighbours, what the AI does in a ``Behaviour``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from http import HTTPStatus
from ssl import SSLContext
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

from picows import (
    WSAutoPingStrategy,
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.connection import Connection
from arivox.emulator.gemini import STUDIO_PATH, GeminiOptions, GeminiService
from arivox.emulator.openai import MODELS, Options, RealtimeService
from arivox.emulator.openai_live import LiveOptions, LiveService
from arivox.emulator.service import Service
from arivox.emulator.session import Request, Session

__all__ = ["Connection", "EmulatorServer"]

_MAX_FRAME: Final = 24 * 1024 * 1024  # an append may carry 15 MiB, in base64
_BACKLOG: Final = 128
_PING_S: Final = 20.0
_CLOSE_TIMEOUT_S: Final = 2.0


class EmulatorServer:
    """Serves every protocol under its own path until its block ends.

    Entering it raises OSError when the port is taken.

    What went wrong in a behaviour is raised when the block ends. ::

        async with EmulatorServer(Echo) as server:
            ...  # connect to server.url
            connection = await server.wait_session()
            await connection.record.wait("session.update")
    """

    def __init__(
        self,
        behaviour: Callable[[], Behaviour],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_keys: Collection[str] | None = None,
        models: Collection[str] | None = MODELS,
        options: Options = Options(),  # noqa: B008 - frozen
        live: LiveOptions = LiveOptions(),  # noqa: B008 - frozen
        gemini: GeminiOptions = GeminiOptions(),  # noqa: B008 - frozen
        keep_audio: bool = True,
        handshake_delay: float = 0.0,
        ssl_context: SSLContext | None = None,
    ) -> None:
        """``behaviour`` makes the AI of each session.

        ``api_keys`` None takes any key, or none; ``models`` None takes any model. ``options`` are those of
        OpenAI Realtime, ``live`` those of OpenAI Live, ``gemini`` those of Gemini Live. ``keep_audio`` False
        records no frames that carry audio. ``handshake_delay`` is the time in seconds for which connections
        made since the start wait, accepted by the kernel but without an answer to their upgrade.
        """
        self.behaviour = behaviour
        self.keep_audio = keep_audio
        self.sessions: list[Connection] = []
        """Every connection that was upgraded, live or past, the oldest first."""
        self.refused = 0
        """Upgrades refused over HTTP."""
        self._services: tuple[Service, ...] = (
            RealtimeService(api_keys, models, options),
            LiveService(api_keys, live),
            GeminiService(api_keys, gemini),
        )
        self._address = (host, port)
        self._handshake_delay = handshake_delay
        self._ssl = ssl_context
        self._socket: socket.socket | None = None
        self._port = 0
        self._server: asyncio.Server | None = None
        self._starting: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(self._address)
        except OSError:
            self._socket.close()
            raise
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)
        self._port = int(self._socket.getsockname()[1])
        if self._handshake_delay:
            self._starting = asyncio.create_task(self._start(self._handshake_delay))
        else:
            await self._start(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        live = [connection for connection in self.sessions if not connection.gone]
        for connection in live:
            connection.resume_reading()
            connection.close(1001, "The emulator stops")
        if live:
            ends = [asyncio.create_task(connection.ended.wait()) for connection in live]
            await asyncio.wait(ends, timeout=_CLOSE_TIMEOUT_S)
            for connection in live:
                if not connection.gone:
                    connection.abort()
            await asyncio.wait(ends)
        if self._server is not None:
            await self._server.wait_closed()
        failures = [failure for connection in self.sessions for failure in connection.failures]
        if failures and error is None:
            raise failures[0]

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        if not self._port:
            raise RuntimeError("the emulator is not started; use 'async with'")
        return self._port

    def address(self, path: str) -> str:
        """Return the WebSocket address of ``path``."""
        scheme = "wss" if self._ssl else "ws"
        host = f"[{self._address[0]}]" if ":" in self._address[0] else self._address[0]
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def url(self) -> str:
        """Return where a client of OpenAI Realtime connects; the model goes into its query."""
        return self.address("/v1/realtime")

    @property
    def live_url(self) -> str:
        """Return where a client of OpenAI Live connects."""
        return self.address("/v1/live/sessions")

    @property
    def gemini_url(self) -> str:
        """Return where a client of Gemini Live connects with a key of AI Studio."""
        return self.address(STUDIO_PATH.format(version="v1beta"))

    @property
    def session(self) -> Connection:
        """Return the newest connection.

        Raises:
            LookupError: There was none.
        """
        if not self.sessions:
            raise LookupError("no client has connected yet")
        return self.sessions[-1]

    async def wait_session(self, count: int = 1, timeout: float = 5.0) -> Connection:
        """Return the ``count``-th connection ever made, once it is there.

        Raises:
            TimeoutError: It was not made within ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            while len(self.sessions) < count:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter
        return self.sessions[count - 1]

    def _changed(self, connection: Connection) -> None:
        if connection.gone:
            task = asyncio.create_task(self._end(connection))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            return
        self.sessions.append(connection)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _end(self, connection: Connection) -> None:
        try:
            await connection.behaviour.closed()
        except Exception as exc:  # noqa: BLE001 - raised again when the server stops
            connection.failures.append(exc)
        finally:
            connection.ended.set()

    async def _start(self, delay: float) -> None:
        await asyncio.sleep(delay)
        self._server = await ws_create_server(
            self._accept,
            sock=self._socket,
            ssl=self._ssl,
            max_frame_size=_MAX_FRAME,
            enable_auto_ping=True,
            auto_ping_idle_timeout=_PING_S,
            auto_ping_reply_timeout=_PING_S,
            auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY,
        )

    def _accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
        path = request.path.decode("latin-1")
        parts = urlsplit(path)
        service = next((one for one in self._services if one.serves(parts.path)), None)
        if service is None:
            return None
        behaviour = self.behaviour()
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(parts.path, dict(parse_qsl(parts.query)), headers)
        connection = Connection(behaviour, path, headers, keep_audio=self.keep_audio, on_change=self._changed)
        opened: Session | int = behaviour.http_status
        if opened == HTTPStatus.SWITCHING_PROTOCOLS:
            opened = service.open(asked, behaviour, connection, connection.record, connection.wake)
        if isinstance(opened, int):
            self.refused += 1
            return WSUpgradeResponseWithListener(
                WSUpgradeResponse.create_error_response(HTTPStatus(opened)), None
            )
        connection.session = opened
        agreed = service.subprotocol(asked)
        extra = {"Sec-WebSocket-Protocol": agreed} if agreed else None
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra), connection)
