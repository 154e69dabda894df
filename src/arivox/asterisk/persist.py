"""Requests that must reach Asterisk, however long it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from arivox.backoff import delays
from arivox.errors import AsteriskError, ChannelGoneError

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
