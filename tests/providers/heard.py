"""What the tests of the sessions share: the events of one, and waiting for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from arivox.providers.base import ProviderEvent

T = TypeVar("T")


class Heard:
    """Questions about ``events``, all that a session has reported."""

    events: list[ProviderEvent]

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[T], count: int = 1) -> T:
        """Return the ``count``-th event of a kind, once it is there."""
        await self.once(lambda: len(self.of(kind)) >= count, f"no {kind.__name__} in {self.events}")
        return self.of(kind)[count - 1]

    async def once(self, condition: Callable[[], object], otherwise: str) -> None:
        """Return once ``condition()`` is true: not all that a session does is an event."""
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, otherwise
            await asyncio.sleep(0.002)
