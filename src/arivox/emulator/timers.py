"""Timers of a pure core: callbacks in the order of their time, driven from outside."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """One planned call. ``cancel()`` makes it never happen."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[float], None]) -> None:
        self.when = when
        self.callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Forget the call; harmless when it has been made already."""
        self.callback = None


class Timers:
    """Planned calls by time in seconds. ``wake`` is told the time at which ``run`` is next due."""

    def __init__(self, wake: Callable[[float], None]) -> None:
        self._wake = wake
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._awaited = float("inf")

    def at(self, when: float, callback: Callable[[float], None]) -> Timer:
        """Call ``callback(now)`` once ``when`` has come."""
        timer = Timer(when, callback)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        if when < self._awaited:
            self._awaited = when
            self._wake(when)
        return timer

    def run(self, now: float) -> None:
        """Make every call that is due at ``now``."""
        heap = self._heap
        self._awaited = float("-inf")
        while heap and (heap[0][0] <= now or heap[0][2].callback is None):
            timer = heapq.heappop(heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback(now)
        self._awaited = heap[0][0] if heap else float("inf")
        if heap:
            self._wake(self._awaited)

    def clear(self) -> None:
        """Forget every planned call."""
        self._heap.clear()
