"""Waiting in a test for something to become true, with a deadline and a message that says what did not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Waiters:
    """Coroutines that wait for conditions on the state of ``owner``; ``settle`` after each change of it."""

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Return as soon as ``condition()`` is true. Raise TimeoutError after ``timeout`` seconds."""
        if condition():
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter[1]
        except TimeoutError:
            raise TimeoutError(f"{self._owner!r}: {what} did not come within {timeout:g} s") from None
        finally:
            self._waiting.remove(waiter)

    def settle(self) -> None:
        """Wake those whose condition is true now."""
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)
