"""One client's WebSocket to an emulator: the shell around a session."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from arivox.emulator.behaviour import Behaviour
from arivox.emulator.record import Record
from arivox.emulator.session import Session

_CLOSE_TIMEOUT_S: Final = 2.0
_EARLY_S: Final = 0.0005  # event loops round timers to the millisecond, either way
_NO_CODE: Final = 1005  # RFC 6455, 7.1.5: the close frame held no code


class Connection(WSListener):
    """One client's socket, the session on it and what passed."""

    def __init__(
        self,
        behaviour: Behaviour,
        path: str,
        headers: dict[str, str],
        *,
        keep_audio: bool,
        on_change: Callable[[Connection], None],
    ) -> None:
        """``on_change`` is called when the socket is open, and when it is gone (``gone`` is true then)."""
        self.behaviour = behaviour
        self.path = path
        self.query = dict(parse_qsl(urlsplit(path).query))
        self.headers = headers
        """The headers of the upgrade request, names in lower case."""
        self.record = Record(keep_audio=keep_audio)
        self.session: Session
        """Set before the socket opens."""
        self.gone = False
        self.ended = asyncio.Event()
        """Set when the socket is gone and the behaviour has stopped."""
        self.close_code: int | None = None
        """What the client's close frame said (1005 when it held no code); None while there is none."""
        self.close_reason = ""
        self.failures: list[Exception] = []
        """What went wrong in session or behaviour: mistakes, not refusals."""
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held: list[tuple[bytes, bool]] | None = None
        self._partial = bytearray()
        self._partial_text = True

    def __repr__(self) -> str:
        return f"<Connection {self.path} {self.session!r}>"

    # Wire

    def send(self, data: bytes, *, binary: bool = False) -> None:
        """Write one frame, or hold it while stalled."""
        if self._held is not None:
            self._held.append((data, binary))
        elif self._transport is not None:
            self._transport.send(WSMsgType.BINARY if binary else WSMsgType.TEXT, data)

    def close(self, code: int, reason: str) -> None:
        """Write a close frame; the socket goes when the client answers, or after 2 s."""
        if self._transport is None or self._transport.is_close_frame_sent:
            return
        self._transport.send_close(cast("WSCloseCode", code), reason.encode()[:123])
        self._loop.call_later(_CLOSE_TIMEOUT_S, self._transport.disconnect, False)

    # Faults

    def stall(self) -> None:
        """Hold back every frame until ``resume``, as a service does that hangs."""
        self._held = self._held if self._held is not None else []

    def resume(self) -> None:
        """Send what was held, and go on."""
        held, self._held = self._held, None
        for data, binary in held or ():
            self.send(data, binary=binary)

    def stop_reading(self) -> None:
        """Leave the client's bytes in the socket, so that its own send buffer fills."""
        if self._transport is not None:
            self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.underlying_transport.resume_reading()

    def abort(self) -> None:
        """Reset the TCP connection."""
        if self._transport is not None:
            sock = self._transport.underlying_transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.disconnect(graceful=False)

    # picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin the session."""
        self._transport = transport
        self._on_change(self)
        self._guard(self._open, time.monotonic())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Hand a message to the session."""
        kind = frame.msg_type
        if kind in {WSMsgType.TEXT, WSMsgType.BINARY} and frame.fin:
            self._receive(frame.get_payload_as_bytes(), text=kind == WSMsgType.TEXT)
        elif kind == WSMsgType.CLOSE:
            self.close_code = cast("int", frame.get_close_code()) or _NO_CODE
            self.close_reason = frame.get_close_reason() or ""
            transport.send_close(frame.get_close_code() or WSCloseCode.OK)
            transport.disconnect()
        elif kind in {WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION}:
            if kind != WSMsgType.CONTINUATION:
                self._partial_text = kind == WSMsgType.TEXT
            self._partial += frame.get_payload_as_bytes()
            if frame.fin:
                data = bytes(self._partial)
                self._partial.clear()
                self._receive(data, text=self._partial_text)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """End the session."""
        del transport
        self.gone = True
        self.session.lost()
        if self._timer is not None:
            self._timer.cancel()
        self._on_change(self)

    def pause_writing(self) -> None:
        """Take note that the client reads slowly: nothing is dropped."""

    def resume_writing(self) -> None:
        """Take note that the client has caught up."""

    # Inside

    def _open(self, now: float) -> None:
        self.session.open(now)
        if not self.session.closed:
            self.behaviour.opened(self.session, self, now)

    def _receive(self, data: bytes, *, text: bool) -> None:
        if self.session.closed:
            return
        receive = self.session.receive_text if text else self.session.receive_binary
        self._guard(receive, data, time.monotonic())

    def wake(self, when: float) -> None:
        """Have the session ticked at ``when`` (monotonic seconds)."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(when - time.monotonic(), 0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self.session.closed:
            self._guard(self.session.tick, time.monotonic() + _EARLY_S)

    def _guard(self, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except Exception as exc:  # noqa: BLE001 - the server raises it again when it stops
            self.failures.append(exc)
            self.session.close(1011, "The emulator failed")
