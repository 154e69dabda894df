"""Requests that must reach Asterisk, however long it is away, and requests that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from arivox.backoff import delays
from arivox.errors import ArivoxError, AsteriskError, ChannelGoneError

log = structlog.get_logger()

T = TypeVar("T")


async def persist(what: str, ask: Callable[[], Awaitable[T]], wanted: Callable[[], bool]) -> T | None:
    """Ask until Asterisk answers, with pauses of 0.2 to 5 s. Return its answer; None: it is not ``wanted``.

    Raises ChannelGoneError, and AsteriskError where Asterisk refuses: it would refuse the next, too.
    """
    pauses = delays(0.2, 5.0)
    while wanted():
        try:
            return await ask()
        except ChannelGoneError:
            raise
        except AsteriskError as error:
            if error.status is not None and error.status < 500:
                raise
            log.warning("a request to Asterisk failed; trying again", what=what, error=str(error))
        await asyncio.sleep(next(pauses))
    return None


async def attempt(what: str, request: Awaitable[object]) -> bool:
    """Make a request that may fail. Return whether it is done, or what it is about had ended by itself."""
    try:
        await request
    except ChannelGoneError:
        pass  # it ended by itself
    except ArivoxError as error:
        log.warning("a request to Asterisk failed", what=what, error=str(error))
        return False
    return True


async def insist(what: str, ask: Callable[[], Awaitable[object]], wanted: Callable[[], bool]) -> bool:
    """``persist``, and log a refusal instead of raising it. Return whether nothing was refused."""
    return await attempt(what, persist(what, ask, wanted))
