"""The pacer: one ticker on absolute deadlines for the media of all calls.

Time is cut into slots of 5 ms, four to a ptime. A client is due once in four slots, so the packets of many
calls do not leave in one burst. The ticker is a Linux ``timerfd`` where there is one.

The client is told the number of its slot, not the time: after a stall of the process every slot missed is
still run (up to a bound), so streams stay whole and do not shift.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import Final, Protocol

import structlog

from arivox.audio.format import PTIME_MS
from arivox.media.timerfd import open_timerfd

log = structlog.get_logger()

SLOT_S: Final = 0.005
SLOTS: Final = round(PTIME_MS / 1000 / SLOT_S)
_CATCH_UP_SLOTS: Final = 20  # 100 ms: more than that at once would only overrun the phones' jitter buffers


class PacerClient(Protocol):
    """One stream that must do something every ptime."""

    due: int
    """Slot of the next tick. The pacer adds a ptime after each tick; a client may set it earlier or later."""

    def tick(self, now: float) -> None:
        """Do what is due. ``now`` is the slot's own time on the monotonic clock, in seconds."""
        ...

    def broken(self) -> None:
        """Hear that a tick raised, and that there will be no more."""
        ...

    def stalled(self, ticks: int) -> None:
        """Hear that ``ticks`` ticks were given up after a stall too long to catch up with."""
        ...


class Pacer:
    """Ticks its clients. Runs only while it has any."""

    def __init__(self) -> None:
        self._clients: list[list[PacerClient]] = [[] for _ in range(SLOTS)]
        self._slot_of: dict[PacerClient, int] = {}
        self._origin = time.monotonic()
        self._done = 0  # the last slot that was run
        self._timer: _Timer | None = None
        self.late_slots = 0
        self.lost_slots = 0

    def slot(self, now: float | None = None) -> int:
        """Return the first slot that begins at or after ``now``."""
        return math.ceil(((time.monotonic() if now is None else now) - self._origin) / SLOT_S)

    def add(self, client: PacerClient) -> None:
        """Tick the client from now on, in the slot with the fewest clients."""
        if self._timer is None:
            self._done = self.slot() - 1
            self._timer = _open_timer(self)
        first = self._done + 1
        quietest = min(range(first, first + SLOTS), key=lambda slot: len(self._clients[slot % SLOTS]))
        client.due = quietest
        self._place(client)

    def move(self, client: PacerClient, due: int) -> None:
        """Make ``due`` the slot of the client's next tick."""
        client.due = due
        place = due % SLOTS
        if self._slot_of.get(client, place) != place:
            self._clients[self._slot_of[client]].remove(client)
            self._place(client)

    def remove(self, client: PacerClient) -> None:
        """Stop ticking the client. Nothing happens if it is not there."""
        place = self._slot_of.pop(client, None)
        if place is not None:
            self._clients[place].remove(client)
        if not self._slot_of:
            self.close()

    def close(self) -> None:
        """Stop the ticker."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def run(self, now: float) -> None:
        """Run every slot up to ``now``. The timer calls this; tests may."""
        current = math.floor((now - self._origin) / SLOT_S + 1e-6)
        behind = current - self._done
        if behind > 1:
            self.late_slots += behind - 1
        if behind > _CATCH_UP_SLOTS + SLOTS:
            given_up = (behind - _CATCH_UP_SLOTS) // SLOTS
            self.lost_slots += given_up * SLOTS
            self._done += given_up * SLOTS
            for client in tuple(self._slot_of):
                if client.due <= self._done:
                    missed = (self._done - client.due) // SLOTS + 1
                    client.due += missed * SLOTS
                    client.stalled(missed)
        while self._done < current:
            self._done += 1
            slot_time = self._origin + self._done * SLOT_S
            for client in tuple(self._clients[self._done % SLOTS]):
                if client.due <= self._done and client in self._slot_of:
                    client.due += SLOTS
                    self._tick(client, slot_time)

    def _tick(self, client: PacerClient, slot_time: float) -> None:
        try:
            client.tick(slot_time)
        except Exception:
            # A bug in one stream must not silence the others.
            log.exception("a stream failed and is stopped")
            self.remove(client)
            client.broken()

    def next_time(self) -> float:
        """Return when the next slot begins, on the monotonic clock."""
        return self._origin + (self._done + 1) * SLOT_S

    def _place(self, client: PacerClient) -> None:
        place = client.due % SLOTS
        self._clients[place].append(client)
        self._slot_of[client] = place


class _Timer(Protocol):
    def close(self) -> None: ...


class _TimerFd:
    """A periodic kernel timer read through the event loop."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._loop = asyncio.get_running_loop()
        self._fd = open_timerfd(pacer.next_time(), SLOT_S)
        self._loop.add_reader(self._fd, self._expired)

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._pacer.run(time.monotonic())

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class _LoopTimer:
    """The event loop's own timer, where there is no timerfd."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._loop = asyncio.get_running_loop()
        self._offset = self._loop.time() - time.monotonic()
        self._arm()

    def _arm(self) -> None:
        self._handle = self._loop.call_at(self._pacer.next_time() + self._offset, self._expired)

    def _expired(self) -> None:
        try:
            self._pacer.run(time.monotonic())
        finally:
            if not self._handle.cancelled():
                self._arm()

    def close(self) -> None:
        self._handle.cancel()


def _open_timer(pacer: Pacer) -> _Timer:
    try:
        return _TimerFd(pacer)
    except OSError as error:
        log.warning("no kernel timer; packets will be paced less exactly", error=str(error))
        return _LoopTimer(pacer)
