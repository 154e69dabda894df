"""A provider's connection from the first attempt to the end.

It is opened while time allows, and what is said before the session is ready is kept for it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import structlog

from arivox.audio.format import PTIME_MS
from arivox.backoff import delays
from arivox.errors import ProviderError
from arivox.logs import TO_PROVIDER
from arivox.providers.base import SessionCounters, SessionExpires
from arivox.providers.refusal import LASTING, LONGEST_WAIT_S, PASSING, retry_after_s
from arivox.providers.socket import ProviderSocket

log = structlog.get_logger()

_EARLY_AUDIO_MS: Final = 5000
_AGAIN_S: Final = 2.0  # for a service that has taken a session of this call before
# Close codes after which another attempt to open may succeed; the others answer a mistake of ours.
_TRANSIENT_CLOSES: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1015})


async def open_in_time(
    provider: str, timeout_s: float, attempt: Callable[[], Awaitable[None]], *, first_s: float | None = None
) -> None:
    """Make attempts until one succeeds, while time allows. An attempt that fails must leave nothing behind.

    With ``first_s`` the first is given up after so long: a server that took a session a while ago, and hangs
    now, may take the next. Raises ProviderError: that of an attempt when another would not help, else
    ``timeout``.
    """
    last: ProviderError | None = None
    try:
        async with asyncio.timeout(timeout_s):
            for delay in delays(0.25, 2.0):
                try:
                    await _in_time(provider, attempt, first_s if last is None else None)
                except ProviderError as error:
                    if error.code not in PASSING:
                        raise
                    last = error
                    delay = max(delay, min(error.retry_after_s or 0.0, LONGEST_WAIT_S))
                    log.warning("the AI's server did not take the session; trying again", error=str(error))
                else:
                    return
                await asyncio.sleep(delay)
    except TimeoutError:
        why = f"; last: {last.message}" if last is not None else ""
        raise ProviderError(provider, f"no session within {timeout_s:g} s{why}", code="timeout") from None


async def _in_time(provider: str, attempt: Callable[[], Awaitable[None]], limit_s: float | None) -> None:
    try:
        async with asyncio.timeout(limit_s) as limit:
            await attempt()
    except TimeoutError:
        if not limit.expired():
            raise
        raise ProviderError(provider, f"no answer within {limit_s:g} s", code="connect") from None


def expiry(expires_at: object) -> SessionExpires | None:
    """Return when the session ends, from the service's ``expires_at`` in seconds since 1970; None if unknown.

    One in the past is a clock that is wrong here: it must not end the call.
    """
    seconds = expires_at - time.time() if isinstance(expires_at, (int, float)) else 0.0
    return SessionExpires(seconds) if seconds > 0 else None


def closed_by_server(provider: str, code: int, reason: str, *, opening: bool) -> ProviderError:
    """Return the error for a connection that the server closed; while opening, ``connect`` to try again.

    A session that was set up is lost, whatever the code: another may do, unless the reason names what lasts.
    """
    text = f"the server closed the connection (code {code}{': ' + reason if reason else ''})"
    # The reason is "<type>.<code>" for a refusal of ours.
    named = re.fullmatch(r"[a-z_]+\.([a-z_]+)", reason.strip())
    name = named[1] if named is not None else str(code)
    if opening and (code in _TRANSIENT_CLOSES or name in PASSING):
        name = "connect"
    lost = not opening and name not in LASTING
    return ProviderError(provider, text, code=name, lost=lost, retry_after_s=retry_after_s(reason))


class Connection:
    """One session's connection.

    ``on_message`` is given each message; while ``opening``, it answers with ``accept`` or ``refuse``.
    ``on_gone`` is called once if the connection breaks after that. ``encode_audio`` makes a message of audio.
    """

    def __init__(
        self,
        provider: str,
        counters: SessionCounters,
        on_message: Callable[[bytes | memoryview], None],
        on_gone: Callable[[ProviderError], None],
        encode_audio: Callable[[bytes], bytes],
        *,
        debug: bool = False,
    ) -> None:
        self.ready = False
        """The session can be used."""
        self.over = False
        """The session is lost or closed: nothing is kept for it."""
        self._provider = provider
        self._counters = counters
        self._on_message = on_message
        self._on_gone = on_gone
        self._encode_audio = encode_audio
        self._debug = debug
        self._socket: ProviderSocket | None = None
        self._opened: asyncio.Future[None] | None = None
        self._early: deque[bytes] = deque(maxlen=_EARLY_AUDIO_MS // PTIME_MS)
        self._waiting: list[bytes] = []

    # --- opening ---

    @property
    def opening(self) -> bool:
        """Return whether the service has still to say if it takes the session."""
        return self._opened is not None and not self._opened.done()

    async def open(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout_s: float,
        *,
        hello: bytes = b"",
        first: Iterable[bytes] = (),
        again: bool = False,
    ) -> None:
        """Connect, say ``hello``, and wait until the session is accepted.

        Then send what comes ``first``, and after it what was kept. ``again``: the service has taken a session
        of this call before, and is not waited for in vain. Raises ProviderError.
        """

        async def attempt() -> None:
            if self.over:
                raise self._closed()
            self._opened = asyncio.get_running_loop().create_future()
            try:
                self._socket = await ProviderSocket.open(
                    self._provider, url, headers, self._on_message, self._on_close, timeout_s=timeout_s
                )
                if hello:
                    self.send(hello)
                # A refused key or model arrives as a message after a good handshake.
                await self._opened
            except BaseException:
                await self._drop()
                raise
            finally:
                self._opened = None

        await open_in_time(self._provider, timeout_s, attempt, first_s=_AGAIN_S if again else None)
        for message in first:
            self.send(message)
        self.ready = not self.over
        early = b"".join(self._early)
        if early:
            self._counters.audio_out_frames += len(self._early)
            self._early.clear()
            self.send(self._encode_audio(early))  # in one message that is not dropped
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self.send(message)

    def accept(self) -> None:
        """Say that the service has taken the session."""
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def refuse(self, error: ProviderError) -> None:
        """Say that the service has not taken the session."""
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)

    # --- sending ---

    def send(self, message: bytes) -> None:
        """Send a message now."""
        if self._socket is None:
            return
        self._counters.messages_out += 1
        if self._debug:
            log.debug("sent", origin=TO_PROVIDER, message=message[:2000].decode(errors="replace"))
        self._socket.send(message)

    def tell(self, message: bytes) -> None:
        """Send a message, as soon as the session is ready."""
        if self.ready:
            self.send(message)
        elif not self.over:
            self._waiting.append(message)

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        """Send audio; before the session is ready, keep the last five seconds of it."""
        if self.ready and self._socket is not None:
            self._counters.audio_out_frames += 1
            if self._debug:
                log.debug("sent audio", origin=TO_PROVIDER, size=len(data))
            send = self._socket.send if keep else self._socket.send_droppable
            send(self._encode_audio(data))
            return
        if self.over or len(self._early) == self._early.maxlen:
            self._counters.uplink_dropped_frames += 1
        if not self.over:
            self._early.append(data)

    # --- the end ---

    def end(self) -> None:
        """Take the session for lost or closed. What is sent with ``send`` still goes out."""
        self.ready = False
        self.over = True
        self._counters.uplink_dropped_frames += len(self._early)
        self._early.clear()
        self.refuse(self._closed())

    async def close(self) -> None:
        """Close the connection."""
        self.end()
        await self._drop()

    async def _drop(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
            self._counters.uplink_dropped_frames += socket.dropped

    def _on_close(self, code: int, reason: str) -> None:
        opened = self._opened
        error = closed_by_server(self._provider, code, reason, opening=self.opening)
        if self.opening:
            self.refuse(error)
        elif opened is None or not (opened.cancelled() or opened.exception()):
            self._on_gone(error)  # else who opens knows already

    def _closed(self) -> ProviderError:
        return ProviderError(self._provider, "the session was closed", code="closed")
