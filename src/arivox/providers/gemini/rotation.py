"""The connections of one session, one after another: when another is opened, and when it is taken over.

A connection lasts ten minutes at most. Before the service aborts it, the next is opened beside it and taken
over at a quiet moment. One that is lost is replaced as soon as another can be opened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from arivox.backoff import delays
from arivox.errors import ProviderError
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.protocol import PROVIDER, Closed, closed

log = structlog.get_logger()

_LOOK_EVERY_S: Final = 0.1  # for a quiet moment
_AGAIN_S: Final = 1.0
_GO_EARLY_S: Final = 3.0  # before the end that goAway announced, quiet or not
_SHORTEST_S: Final = 5.0  # a connection is not left sooner for the next one, if there is that much time
_SETTLE_S: Final = 2.0  # nor sooner than this in any case
_LASTED_S: Final = 20.0  # one that held this long was no failure
MOST_FRUITLESS: Final = 5
"""So many connections in a row may be lost early; the next one that is ends the session."""


class Owner(Protocol):
    """The session whose connections they are."""

    @property
    def quiet(self) -> bool:
        """Return whether nothing is going on that another connection would lose."""
        ...

    def stale(self, connection: Connection) -> bool:
        """Return whether the session has got on since the connection was set up."""
        ...

    def give_up_turn(self) -> None:
        """Take note that whatever is in progress will not go on."""
        ...

    def goes_on(self, connection: Connection, cause: str, gap_ms: int) -> None:
        """Hear that ``connection`` replaces another; ``begin`` follows."""
        ...

    def begin(self, connection: Connection) -> None:
        """Use ``connection``, which is the current one from now on."""
        ...

    def failed(self, error: ProviderError) -> None:
        """Hear that there is no connection, and will be none."""
        ...


class Rotation:
    """Keeps one connection in use. ``open_next`` returns one that is set up, or raises ProviderError."""

    def __init__(self, owner: Owner, open_next: Callable[[], Awaitable[Connection]]) -> None:
        self.current: Connection | None = None
        self.closed = False
        self._owner = owner
        self._open_next = open_next
        self._renewing: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None  # for a quiet moment
        self._leave_by = 0.0  # another connection must be in use then; 0: no need
        self._used_at = 0.0
        self._lost_at = 0.0
        self._fruitless = 0
        self._delays = delays(0.5, 4.0)

    @property
    def alive(self) -> bool:
        """Return whether something can be sent."""
        return self.current is not None and self.current.alive

    def use(self, connection: Connection) -> None:
        """Make ``connection`` the current one."""
        self.current = connection
        self._used_at = time.monotonic()
        if connection.alive:
            self._owner.begin(connection)
        else:
            self.lost(closed(1006, ""))  # right after it was set up

    def lost(self, meaning: Closed) -> None:
        """Hear that the service closed the current connection."""
        self._lost_at = now = time.monotonic()
        useful = self.current is not None and self.current.useful
        if now - self._used_at >= (_SHORTEST_S if useful else _LASTED_S):
            self._fruitless = 0
            self._delays = delays(0.5, 4.0)
        self._fruitless += 1
        self._owner.give_up_turn()
        if meaning.remedy == "give up" or self._fruitless > MOST_FRUITLESS:
            self._owner.failed(meaning.error)
            return
        log.warning("the AI's connection was lost; opening another", error=str(meaning.error))
        self._renew(meaning.error.message, next(self._delays) if self._fruitless > 1 else 0.0)

    def going_away(self, seconds: float) -> None:
        """Hear that the service will abort the current connection in so many seconds."""
        log.info("the AI's connection will end; another is made", seconds=seconds)
        latest = time.monotonic() + max(seconds - _GO_EARLY_S, 0.0)
        self._leave_by = max(latest, self._used_at + _SETTLE_S)
        self._look()

    async def close(self) -> None:
        """Close the current connection, and give up opening another. May be called twice."""
        self.closed = True
        self._stop_looking()
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait([renewing])
        connection, self.current = self.current, None
        if connection is not None:
            await connection.close()

    # --- inside ---

    def _renew(self, cause: str, delay: float = 0.0) -> None:
        if self._renewing is None and not self.closed:
            self._renewing = asyncio.get_running_loop().create_task(self._renewed(cause, delay))

    async def _renewed(self, cause: str, delay: float) -> None:
        """Open another connection and go on over it."""
        await asyncio.sleep(delay)
        begun = time.monotonic()
        try:
            connection = await self._open_next()
        except ProviderError as error:
            self._renewing = None
            self._not_opened(error, cause, begun)
            return
        except Exception as error:
            # A bug of ours: without this the call would be left without an AI, and nobody would know.
            log.exception("no other connection of the AI")
            self._renewing = None
            self._owner.failed(ProviderError(PROVIDER, f"no other connection: {type(error).__name__}"))
            return
        self._renewing = None
        planned = self.alive
        if planned and (self._owner.stale(connection) or not self._may_leave()):
            # Somebody spoke meanwhile, and the new connection would know nothing of it.
            await connection.close()
            self._look()
            return
        if planned and not self._owner.quiet:
            self._owner.give_up_turn()
        self._leave_by = 0.0
        old = self.current
        gap_ms = 0 if planned else round((time.monotonic() - self._lost_at) * 1000)
        self._owner.goes_on(connection, cause, gap_ms)
        self.use(connection)
        if old is not None:
            await old.close()

    def _not_opened(self, error: ProviderError, cause: str, begun: float) -> None:
        if self.alive:
            log.warning("no other connection of the AI yet; trying again", error=str(error))
            self._look(_AGAIN_S)
        elif self._lost_at > begun and error.code == "timeout":
            self._renew(cause)  # the one in use was lost meanwhile: that one's time begins now
        else:
            self._owner.failed(error)

    def _look(self, delay: float = 0.0) -> None:
        """Leave the connection at the next quiet moment, ``delay`` seconds from now at the earliest."""
        if self.closed or self._leave_by == 0.0 or self._renewing is not None:
            return
        self._stop_looking()
        settled = min(self._used_at + _SHORTEST_S, self._leave_by)
        delay = max(delay, settled - time.monotonic())
        if delay <= 0 and self._may_leave():
            self._renew("goAway")
        else:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(max(delay, _LOOK_EVERY_S), self._look)

    def _stop_looking(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _may_leave(self) -> bool:
        return time.monotonic() >= self._leave_by or self._owner.quiet
