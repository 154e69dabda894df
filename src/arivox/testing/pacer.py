"""One clock for every phone of an event loop: calls back on absolute deadlines, spread over 5 ms slots.

A timerfd wakes the loop. The timers of asyncio are up to a millisecond late, because epoll counts in
milliseconds, and an interval measured from the last wake-up drifts.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import weakref
from collections.abc import Callable
from typing import ClassVar, Final

from arivox.media.timerfd import open_timerfd

TICK_S: Final = 0.005
# After a longer stall the missed slots are left out: what a listener would have heard then is gone anyway.
_CATCH_UP_TICKS: Final = 200

Callback = Callable[[], None]


class Subscription:
    """A call back every ``period_ms``; close it when it is no longer wanted."""

    def __init__(self, pacer: Pacer, slot: list[Callback], callback: Callback) -> None:
        self._pacer = pacer
        self._slot = slot
        self._callback = callback
        self._open = True

    def close(self) -> None:
        """Stop the calls. The last subscription to close stops the clock."""
        if self._open:
            self._open = False
            self._slot.remove(self._callback)
            self._pacer._release()


class Pacer:
    """The clock of one event loop. ``Pacer.running()`` finds it."""

    _of_loop: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pacer]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, list[list[Callback]]] = {}
        self._users = 0
        self._tick = 0
        self._started = 0.0
        self._fd = -1
        self.worst_lateness_s = 0.0
        self.skipped_ticks = 0
        self.phase_s: float | None = None
        """Where in a tick of the monotonic clock to begin, from the next start on; None: anywhere."""

    @classmethod
    def running(cls) -> Pacer:
        """Return the pacer of the running event loop."""
        loop = asyncio.get_running_loop()
        pacer = cls._of_loop.get(loop)
        if pacer is None:
            pacer = cls._of_loop[loop] = cls(loop)
        return pacer

    def subscribe(self, callback: Callback, period_ms: int = 20) -> Subscription:
        """Call ``callback`` every ``period_ms``, a multiple of 5, in the slot with the fewest subscribers."""
        ticks, rest = divmod(period_ms, round(TICK_S * 1000))
        if rest or ticks < 1:
            raise ValueError(f"a period of {period_ms} ms is not a multiple of 5 ms")
        slots = self._slots.setdefault(ticks, [[] for _ in range(ticks)])
        slot = min(slots, key=len)
        slot.append(callback)
        self._users += 1
        if self._users == 1:
            self._start()
        return Subscription(self, slot, callback)

    def _release(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _start(self) -> None:
        self._started = time.monotonic() + TICK_S
        if self.phase_s is not None:
            self._started += (self.phase_s - self._started) % TICK_S
        self._tick = 0
        self._fd = open_timerfd(self._started, TICK_S)
        self._loop.add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        try:
            expired = int.from_bytes(os.read(self._fd, 8), sys.byteorder)
        except BlockingIOError:  # another wake-up has taken the expirations
            return
        due = self._started + self._tick * TICK_S
        self.worst_lateness_s = max(self.worst_lateness_s, time.monotonic() - due)
        if expired > _CATCH_UP_TICKS:
            self.skipped_ticks += expired - _CATCH_UP_TICKS
            self._tick += expired - _CATCH_UP_TICKS
            expired = _CATCH_UP_TICKS
        for _ in range(expired):
            for period, slots in self._slots.items():
                for callback in tuple(slots[self._tick % period]):
                    callback()
            self._tick += 1
