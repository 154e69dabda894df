"""The connections of one session, one after another: when another is opened, and when it is taken over.

A connection lasts ten minutes at most. Before the service aborts it, the next is opened beside it and taken
over at a quiet moment; where the service refuses that while the first is open, the first is closed at a quiet
moment, and the next opened then. One that is lost, or mute, is replaced as soon as another can be opened.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

import structlog

from arivox.backoff import delays
from arivox.errors import ProviderError
from arivox.providers.gemini.closes import Closed, SetupRefusedError, closed
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.protocol import PROVIDER
from arivox.providers.refusal import LASTING, LONGEST_WAIT_S

log = structlog.get_logger()

_LOOK_EVERY_S: Final = 0.1  # for a quiet moment
_AGAIN_S: Final = 1.0
_GO_EARLY_S: Final = 3.0  # before the end that goAway announced, quiet or not
_SHORTEST_S: Final = 5.0  # a connection is not left sooner for the next one, if there is that much time
_SETTLE_S: Final = 2.0  # nor sooner than this in any case
_LASTED_S: Final = 20.0  # one that held this long was no failure
_USELESS_RESUMES: Final = (
    2  # so many connections in a row that bring nothing forward end the session they resume
)
_MUTE: Final = 0.5  # a connection that is given up for its silence counts less than one that is lost
MOST_FRUITLESS: Final = 5
"""So many connections in a row may be lost early; the next one that is ends the session."""


class Owner(Protocol):
    """The session whose connections they are."""

    @property
    def quiet(self) -> bool:
        """Return whether nothing is going on that another connection would lose."""
        ...

    @property
    def overdue(self) -> bool:
        """Return whether an answer is awaited that should have begun, and nothing else is going on."""
        ...

    def stale(self, connection: Connection) -> bool:
        """Return whether the session has got on since the connection was set up."""
        ...

    def outdated(self, connection: Connection) -> bool:
        """Return whether the connection takes the session up from before the latest handle."""
        ...

    def give_up_turn(self, meaning: Closed | None = None) -> None:
        """Take note that whatever is in progress will not go on; ``meaning`` is how the service ended it."""
        ...

    def begin_anew(self) -> None:
        """Take note that the next connection takes no session up."""
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


class OpenNext(Protocol):
    """Opens connections."""

    async def __call__(self, *, beside: bool = False) -> Connection:
        """Return one that is set up, ``beside`` the current one or in its place. Raises ProviderError."""
        ...


class Rotation:
    """Keeps one connection in use."""

    def __init__(self, owner: Owner, open_next: OpenNext) -> None:
        self.current: Connection | None = None
        self.closed = False
        self._owner = owner
        self._open_next = open_next
        self._left: list[Connection] = []  # to be closed
        self._renewing: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None  # for a quiet moment
        self._leave_by = 0.0  # another connection must be in use then; 0: no need
        self._close_first = False  # the service takes no other connection beside this one
        self._used_at = 0.0
        self._lost_at = 0.0
        self._fruitless = 0.0
        self._useless = 0  # connections in a row over which nothing happened
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
            self.lost(connection.ended or closed(1006, ""))  # right after it was set up

    def lost(self, meaning: Closed) -> None:
        """Hear that the service closed the current connection."""
        useful = self.current is not None and self.current.useful
        self._count(1, lasted=self._age() >= (_SHORTEST_S if useful else _LASTED_S))
        if meaning.remedy == "give up" or self._fruitless > MOST_FRUITLESS:
            self._owner.failed(meaning.error)
            return
        if meaning.remedy == "new":
            self._owner.begin_anew()
        self._owner.give_up_turn(meaning)
        log.warning("the AI's connection was lost; opening another", error=str(meaning.error))
        self._renew(meaning.error.message, self._delay(meaning.error))

    def renew(self, cause: str) -> None:
        """Give the current connection up, which is mute, and go on over another."""
        connection = self.current
        if self.closed or connection is None or not connection.alive:
            return
        self._count(_MUTE, lasted=connection.useful and self._age() >= _SHORTEST_S)
        if self._fruitless > MOST_FRUITLESS:
            self._owner.failed(ProviderError(PROVIDER, cause, code="silent"))
            return
        log.warning("the AI's connection is given up; opening another", cause=cause)
        self._leave(lossy=True)
        self._renew(cause, next(self._delays) if self._fruitless > 1 else 0.0)

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
            self._left.append(connection)
        await self._close_left()

    # --- inside ---

    def _age(self) -> float:
        return time.monotonic() - self._used_at

    def _count(self, weight: float, *, lasted: bool) -> None:
        """Take note that the current connection is at its end."""
        self._lost_at = time.monotonic()
        if lasted:
            self._fruitless = self._useless = 0
            self._delays = delays(0.5, 4.0)
        self._fruitless += weight
        self._useless = 0 if lasted or (self.current and self.current.useful) else self._useless + 1
        if self._useless >= _USELESS_RESUMES:
            self._owner.begin_anew()

    def _delay(self, error: ProviderError) -> float:
        delay = next(self._delays) if self._fruitless > 1 else 0.0
        return max(delay, min(error.retry_after_s or 0.0, LONGEST_WAIT_S))

    def _leave(self, *, lossy: bool) -> None:
        """Stop using the current connection; it is closed before another is opened."""
        if lossy:
            self._owner.give_up_turn()
        connection, self.current = self.current, None
        if connection is not None:
            self._left.append(connection)

    async def _close_left(self) -> None:
        while self._left:
            await self._left.pop().close()

    def _renew(self, cause: str, delay: float = 0.0) -> None:
        if self._renewing is None and not self.closed:
            self._renewing = asyncio.get_running_loop().create_task(self._renewed(cause, delay))

    async def _renewed(self, cause: str, delay: float) -> None:
        """Open another connection and go on over it."""
        await self._close_left()
        await asyncio.sleep(delay)
        begun = time.monotonic()
        beside = self.alive
        try:
            connection = await self._open_next(beside=beside)
        except ProviderError as error:
            self._renewing = None
            self._not_opened(error, cause, begun, beside=beside)
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
        if not planned and self._owner.outdated(connection):
            await connection.close()
            self._renew(cause)
            return
        if planned and not self._owner.quiet:
            self._owner.give_up_turn()
        self._leave_by = 0.0
        self._close_first = False
        gap_ms = 0 if planned else round((time.monotonic() - self._lost_at) * 1000)
        self._leave(lossy=False)
        self._owner.goes_on(connection, cause, gap_ms)
        self.use(connection)
        await self._close_left()

    def _not_opened(self, error: ProviderError, cause: str, begun: float, *, beside: bool) -> None:
        if self.alive:
            log.warning("no other connection of the AI yet; trying again", error=str(error))
            if isinstance(error, SetupRefusedError) and _in_the_way(error):
                self._close_first = True
            wait_s = min(error.retry_after_s or 0.0, LONGEST_WAIT_S)
            self._look(wait_s if self._close_first else max(wait_s, _AGAIN_S))
        elif beside or (self._lost_at > begun and error.code == "timeout"):
            self._renew(cause)  # the one in use was lost meanwhile: that one's time begins now
        else:
            self._owner.failed(error)

    def _look(self, delay: float = 0.0) -> None:
        """Leave the connection at the next quiet moment, ``delay`` seconds from now at the earliest."""
        if self.closed or self._leave_by == 0.0 or self._renewing is not None or not self.alive:
            return
        self._stop_looking()
        settled = min(self._used_at + _SHORTEST_S, self._leave_by)
        delay = max(delay, settled - time.monotonic())
        if delay <= 0 and self._may_leave():
            if self._close_first:
                self._lost_at = time.monotonic()
                self._leave(lossy=not self._owner.quiet)
            self._renew("goAway")
        else:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(max(delay, _LOOK_EVERY_S), self._look)

    def _stop_looking(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _may_leave(self) -> bool:
        return time.monotonic() >= self._leave_by or self._owner.quiet or self._owner.overdue


def _in_the_way(error: ProviderError) -> bool:
    """Return whether a session may be refused because another connection is open."""
    return error.code == "insufficient_quota" or error.code not in LASTING
