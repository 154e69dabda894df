"""One connection of a session with Gemini Live: opened, set up, and at some time gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from arivox.errors import ProtocolError
from arivox.logs import FROM_PROVIDER, TO_PROVIDER
from arivox.providers.base import Brief, SessionCounters
from arivox.providers.gemini import protocol
from arivox.providers.gemini.closes import Closed, SetupRefusedError, closed, refused
from arivox.providers.gemini.protocol import PROVIDER, Message
from arivox.providers.socket import ProviderSocket

log = structlog.get_logger()

_PONG_WAIT_S: Final = 35.0  # up to 30 s were seen on connections that were well


class Connection:
    """A socket and its set-up.

    ``on_message`` is given each message after ``setupComplete``, from ``begin`` on; ``on_closed`` once how it
    ended, unless we closed it.
    """

    def __init__(
        self,
        handle: str,
        brief: Brief,
        counters: SessionCounters,
        on_message: Callable[[Connection, Message], None],
        on_closed: Callable[[Connection, Closed], None],
        *,
        debug: bool,
    ) -> None:
        self.handle = handle
        """Of the session that it takes up; empty: it begins a new one."""
        self.brief = brief
        """What the session is set up with."""
        self.useful = False
        """The service did something over it, besides taking the session."""
        self.ended: Closed | None = None
        """How the service closed it."""
        self._counters = counters
        self._on_message = on_message
        self._on_closed = on_closed
        self._debug = debug
        self._socket: ProviderSocket | None = None
        self._set_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting: list[Message] | None = []

    @property
    def alive(self) -> bool:
        """Return whether something can be sent."""
        return self._socket is not None

    async def open(self, url: str, headers: Mapping[str, str], setup: bytes, timeout_s: float) -> None:
        """Connect, and wait until the session is set up, for so long each.

        Raises ProviderError, with the code ``connect`` if another attempt may succeed; SetupRefusedError if
        it is the session that is not taken.
        """
        try:
            self._socket = await ProviderSocket.open(
                PROVIDER,
                url,
                headers,
                self._message,
                self._gone,
                timeout_s=timeout_s,
                pong_wait_s=_PONG_WAIT_S,
            )
            self.send(setup)
            async with asyncio.timeout(timeout_s):
                await self._set_up
        except TimeoutError:
            await self.close()
            problem = f"the set-up was not answered within {timeout_s:g} s"
            raise SetupRefusedError(PROVIDER, problem, code="timeout") from None
        except BaseException:
            await self.close()
            raise

    def begin(self) -> None:
        """Hand on what came since the set-up, and from now on each message as it comes."""
        waiting, self._waiting = self._waiting, None
        for message in waiting or ():
            self._on_message(self, message)

    def send(self, message: bytes) -> None:
        """Send a message; nothing happens once the connection is gone."""
        if self._socket is None:
            return
        self._counters.messages_out += 1
        if self._debug:
            log.debug("sent", origin=TO_PROVIDER, message=message[:2000].decode(errors="replace"))
        self._socket.send(message)

    def send_audio(self, message: bytes) -> None:
        """Send a message that may be dropped, oldest first, if the service stops reading."""
        if self._socket is None:
            return
        if self._debug:
            log.debug("sent audio", origin=TO_PROVIDER, size=len(message))
        self._socket.send_droppable(message)

    async def close(self) -> None:
        """Close it. May be called twice."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
            self._counters.uplink_dropped_frames += socket.dropped

    def _message(self, data: bytes | memoryview) -> None:
        try:
            message = protocol.parse(data)
        except ProtocolError as error:
            self._counters.messages_in += 1
            log.warning("a message of the AI is ignored", origin=FROM_PROVIDER, error=str(error))
            return
        if self._debug:
            log.debug("received", origin=FROM_PROVIDER, message=bytes(data[:500]).decode(errors="replace"))
        # Handles, ends of turns and counts of tokens come whether the model heard the caller or not.
        does_something = message.does_something
        self._counters.messages_in += does_something
        self.useful = self.useful or does_something
        if self._waiting is None:
            self._on_message(self, message)
        elif self._set_up.done():
            self._waiting.append(message)
        elif message.setup_complete is not None:
            self._set_up.set_result(None)

    def _gone(self, code: int, reason: str) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            self._counters.uplink_dropped_frames += socket.dropped
        if self._set_up.done():
            self.ended = closed(code, reason)
            self._on_closed(self, self.ended)
        else:
            self._set_up.set_exception(refused(code, reason))
