"""The provider's WebSocket behind three methods: send, a callback for messages, close."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import picows
import structlog

from arivox.errors import ProviderError

log = structlog.get_logger()

_MAX_MESSAGE: Final = 16 * 1024 * 1024
_PONG_WAIT_S: Final = 10.0
# Half a minute of audio would fit into the kernel's own choice: it would be sent, stale, after a stall.
_SEND_BUFFER: Final = 16 * 1024
_HIGH_WATER: Final = 8 * 1024
# Each look-up in the enumeration costs as much as a call.
_TEXT: Final = picows.WSMsgType.TEXT
_WHOLE: Final = (_TEXT, picows.WSMsgType.BINARY)


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return the process's TLS context. Making one blocks for about 17 ms, so it is made once."""
    return ssl.create_default_context()


class ProviderSocket(picows.WSListener):
    """A client connection. Create with ``open``.

    ``on_message`` is given each whole text message as bytes (only valid during the call), ``on_close`` is
    called once with the close code and reason the peer gave (1006 when it gave none).
    """

    def __init__(
        self,
        provider: str,
        on_message: Callable[[bytes | memoryview], None],
        on_close: Callable[[int, str], None],
        backlog: int,
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._provider = provider
        self._on_message = on_message
        self._on_close = on_close
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] = []
        self._stalled = False
        self._backlog: deque[bytes] = deque()
        self._backlog_limit = backlog
        self._abandoned = False
        self._code = 1006
        self._reason = ""

    @classmethod
    async def open(
        cls,
        provider: str,
        url: str,
        headers: Mapping[str, str],
        on_message: Callable[[bytes | memoryview], None],
        on_close: Callable[[int, str], None],
        *,
        timeout_s: float,
        pong_wait_s: float = _PONG_WAIT_S,
        backlog: int = 100,
    ) -> ProviderSocket:
        """Connect. ``backlog`` is how many droppable messages are kept when the peer stops reading.

        A peer that has been silent for ``pong_wait_s`` is sent a ping, and is gone if it stays silent for as
        long again. Raises ProviderError.
        """
        listener = cls(provider, on_message, on_close, backlog)
        try:
            async with asyncio.timeout(timeout_s):
                await picows.ws_connect(
                    lambda: listener,
                    url,
                    ssl_context=tls_context() if url.startswith("wss:") else None,
                    extra_headers=dict(headers),
                    websocket_handshake_timeout=timeout_s,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=pong_wait_s,
                    auto_ping_reply_timeout=pong_wait_s,
                    max_frame_size=_MAX_MESSAGE,
                )
        except BaseException as error:
            listener._abandon()
            if not isinstance(error, (TimeoutError, OSError, picows.WSError)):
                raise
            raise _unreachable(provider, error, timeout_s) from error
        return listener

    def send(self, message: bytes) -> None:
        """Send a text message, ahead of droppable ones that wait.

        Nothing happens after the connection is gone: ``on_close`` says so.
        """
        if self._transport is not None:
            self._transport.send(_TEXT, message)

    def send_droppable(self, message: bytes) -> None:
        """Send a message that may be dropped, oldest first, when the peer stops reading."""
        if self._transport is None:
            return
        if not self._stalled:
            self._transport.send(_TEXT, message)
            return
        if len(self._backlog) >= self._backlog_limit:
            self._backlog.popleft()
            self.dropped += 1
        self._backlog.append(message)

    def _abandon(self) -> None:
        # A handshake that was given up may still complete: nobody would close its connection.
        self._abandoned = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.disconnect(graceful=False)

    async def close(self) -> None:
        """Close the connection, without waiting long for the peer."""
        transport, self._transport = self._transport, None
        self._give_up_backlog()
        if transport is None:
            return
        transport.send_close(picows.WSCloseCode.OK)
        transport.disconnect(graceful=not self._stalled)

    # --- picows.WSListener ---

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Keep the transport, and keep its buffers short."""
        if self._abandoned:
            transport.disconnect(graceful=False)
            return
        self._transport = transport
        underlying = transport.underlying_transport
        underlying.set_write_buffer_limits(high=_HIGH_WATER)
        sock = underlying.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Put the pieces of a message together and hand it on."""
        transport.notify_user_specific_pong_received()  # who sends anything is there
        try:
            self._on_frame(transport, frame)
        except Exception:
            # A bug in taking one message must not cost the connection, as it does inside picows.
            log.exception("a message of the AI could not be taken", provider=self._provider)

    def _on_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if kind in _WHOLE and frame.fin:
            self._on_message(frame.get_payload_as_memoryview())
        elif kind in _WHOLE or kind == picows.WSMsgType.CONTINUATION:
            self._parts.append(frame.get_payload_as_bytes())
            if frame.fin:
                whole = b"".join(self._parts)
                self._parts.clear()
                self._on_message(whole)
        elif kind == picows.WSMsgType.CLOSE:
            self._code = frame.get_close_code().value or 1005
            self._reason = frame.get_close_reason() or ""
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Report the end, unless we asked for it."""
        self._give_up_backlog()
        if self._transport is not None:
            self._transport = None
            self._on_close(self._code, self._reason)

    def _give_up_backlog(self) -> None:
        self.dropped += len(self._backlog)
        self._backlog.clear()

    def pause_writing(self) -> None:
        """Begin to keep messages: the peer does not read."""
        self._stalled = True

    def resume_writing(self) -> None:
        """Send what was kept."""
        self._stalled = False
        while self._backlog and not self._stalled and self._transport is not None:
            self._transport.send(_TEXT, self._backlog.popleft())


def _unreachable(provider: str, error: BaseException, timeout_s: float) -> ProviderError:
    if isinstance(error, TimeoutError):
        return ProviderError(provider, f"no connection within {timeout_s:g} s", code="timeout")
    if isinstance(error, picows.WSInvalidStatusError):
        return _refused(provider, error)
    return ProviderError(provider, f"cannot connect: {error}", code="connect")


def _refused(provider: str, error: picows.WSInvalidStatusError) -> ProviderError:
    status = getattr(getattr(error, "response", None), "status", None)
    code = str(int(status)) if status is not None else "handshake"
    hints = {"401": "the key is refused", "403": "the key may not do this", "404": "no such address or model"}
    return ProviderError(provider, hints.get(code, f"the server refused the connection ({error})"), code=code)
