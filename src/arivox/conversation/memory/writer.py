"""The way from the calls to the store: behind them, so that a store that is slow or down delays nobody.

Each call's turns stay here until the call is over and all of them are stored, so that a store which lost some
can be given them again. A call that ends while the store is down goes to the spool, and from there to the
store once it answers, now or at the next start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from arivox.backoff import delays
from arivox.conversation.memory.record import CallRecord, Saved, Turn
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import Store
from arivox.errors import StoreError

log = structlog.get_logger()

_SAVE_S: Final = 5.0
_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 5.0
_TO_SPOOL_S: Final = 10.0  # after the end of a call
_MOST_TURNS: Final = 5000  # of one call: an hour has some hundreds


@dataclass
class Counters:
    """What the writer did since its start."""

    stored: int = 0
    """Turns."""
    failures: int = 0
    """Attempts to save that failed."""
    spooled: int = 0
    """Calls written to the spool."""
    unspooled: int = 0
    """Calls taken from the spool to the store."""
    lost: int = 0
    """Turns that neither took."""


@dataclass(eq=False)
class CallMemory:
    """What is kept of one call. Its methods return at once."""

    record: CallRecord
    wake: Callable[[], None]
    turns: list[Turn] = field(default_factory=list)
    stored: int = 0
    """So many of the turns are in the store, as far as is known."""
    lost: int = 0
    over_at: float | None = None
    """When the call ended (monotonic seconds)."""
    dirty: bool = False

    def add(self, turn: Turn) -> None:
        """Keep a turn."""
        if len(self.turns) >= _MOST_TURNS:
            if not self.lost:
                log.error("the call has more turns than are kept", most=_MOST_TURNS)
            self.lost += 1
            return
        self.turns.append(turn)
        self._changed()

    def update(self, **fields: Any) -> None:
        """Change the record."""
        for name, value in fields.items():
            setattr(self.record, name, value)
        self._changed()

    def end(self, reason: str) -> None:
        """Hear that the call is over: no more will come."""
        self.over_at = time.monotonic()
        self.update(ended=time.time(), reason=reason)

    def _changed(self) -> None:
        self.dirty = True
        self.wake()


class Writer:
    """Writes what calls give it, in one task. ``start`` before the first call, ``close`` after the last."""

    def __init__(self, store: Store, spool: Spool) -> None:
        self.counters = Counters()
        self._store = store
        self._spool = spool
        self._calls: list[CallMemory] = []
        self._news = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._down = False
        self._spool_waits = True  # something may be in it

    def start(self) -> None:
        """Begin to write, what is in the spool first."""
        self._news.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def begin(self, record: CallRecord) -> CallMemory:
        """Return where a new call's turns go."""
        memory = CallMemory(record, self._news.set)
        self._calls.append(memory)
        memory.update()
        return memory

    async def resume(self, mode: str, record: CallRecord, within_s: float) -> Saved | None:
        """Return the call that this one goes on, if there is one: of the same channel, or of the same caller.

        Raises StoreError.
        """
        if mode == "caller" and not record.caller:
            return None
        here = [
            memory
            for memory in self._calls
            if memory.over_at is not None
            and (
                memory.record.channel == record.channel
                if mode == "same-call"
                else memory.record.caller == record.caller
            )
        ]
        found: Saved | None
        if here:
            found = Saved(here[-1].record, list(here[-1].turns))
        elif mode == "same-call":
            found = await self._store.load(record.channel)
        else:
            latest = await self._store.calls(caller=record.caller, limit=1)
            found = await self._store.load(latest[0].call) if latest else None
        if found is None or time.time() - (found.record.ended or found.record.started) > within_s:
            return None
        return found

    async def close(self, timeout_s: float) -> None:
        """Write what waits, for so long; what is left then goes to the spool."""
        self._closing = True
        self._news.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task], timeout=timeout_s)
            task.cancel()
            await asyncio.wait([task])
        for memory in [memory for memory in self._calls if memory.dirty]:
            await self._to_spool(memory)
        self._calls.clear()
        try:
            await asyncio.wait_for(self._store.close(), 2.0)
        except (StoreError, TimeoutError) as error:
            log.warning("the store was not closed", error=str(error))

    # --- the task ---

    async def _run(self) -> None:
        waits = delays(_FIRST_DELAY_S, _LONGEST_DELAY_S)
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._attempt()
            except StoreError as error:
                self._failed(error)
                await self._give_up_old_ones()
                if self._closing:
                    return
                await asyncio.sleep(next(waits))
                self._news.set()
            else:
                waits = delays(_FIRST_DELAY_S, _LONGEST_DELAY_S)
                if self._closing and not any(memory.dirty for memory in self._calls):
                    return

    async def _attempt(self) -> None:
        """Write all there is. Raises StoreError."""
        try:
            await self._write_all()
        except StoreError:
            raise
        except Exception as error:
            # A bug of ours: without this nothing would be written any more, and nobody would know.
            log.exception("writing conversations failed")
            raise StoreError(f"{self._store.where}: {type(error).__name__}") from error

    async def _write_all(self) -> None:
        """Raises StoreError."""
        for memory in tuple(self._calls):
            while memory.dirty:
                try:
                    await self._write(memory)
                except StoreError:
                    # The next attempt begins with another call: one that is refused must not hold up all.
                    self._calls.remove(memory)
                    self._calls.append(memory)
                    raise
            if memory.over_at is not None:
                self._forget(memory)
        if self._spool_waits:
            await self._empty_spool()
        if self._down:
            self._down = False
            log.info("the store of conversations is back", store=self._store.where)

    async def _write(self, memory: CallMemory) -> None:
        first, turns = memory.stored, memory.turns[memory.stored :]
        memory.dirty = False
        try:
            count = await self._save(memory.record, turns, first)
        except BaseException:
            memory.dirty = True
            raise
        if count < first:
            log.warning("the store has lost turns; they are saved again", lost=first - count)
            memory.dirty = True
        self.counters.stored += max(count - first, 0)
        memory.stored = count

    async def _save(self, record: CallRecord, turns: list[Turn], first: int) -> int:
        try:
            return await asyncio.wait_for(self._store.save(record, turns, first), _SAVE_S)
        except TimeoutError:
            raise StoreError(f"{self._store.where}: no answer within {_SAVE_S:g} s") from None

    def _failed(self, error: StoreError) -> None:
        self.counters.failures += 1
        if not self._down:
            self._down = True
            log.error("conversations cannot be stored; they are kept until it works", error=str(error))

    def _forget(self, memory: CallMemory) -> None:
        self.counters.lost += memory.lost
        self._calls.remove(memory)

    # --- the spool ---

    async def _give_up_old_ones(self) -> None:
        now = time.monotonic()
        for memory in tuple(self._calls):
            if memory.dirty and memory.over_at is not None and now - memory.over_at > _TO_SPOOL_S:
                await self._to_spool(memory)
                self._forget(memory)

    async def _to_spool(self, memory: CallMemory) -> None:
        try:
            path = await asyncio.to_thread(self._spool.write, Saved(memory.record, memory.turns))
        except StoreError as error:
            self.counters.lost += len(memory.turns) - memory.stored
            log.error(
                "turns of a call are lost", call=memory.record.call, turns=len(memory.turns), error=str(error)
            )
            return
        self.counters.spooled += 1
        self._spool_waits = True
        log.warning(
            "a call is kept in the spool until the store works", call=memory.record.call, file=str(path)
        )

    async def _empty_spool(self) -> None:
        """Raises StoreError."""
        for path in await asyncio.to_thread(self._spool.files):
            try:
                saved = await asyncio.to_thread(self._spool.read, path)
            except StoreError as error:
                # It stays for whoever can mend it, under a name that is not tried again.
                log.error("a file of the spool cannot be read and is set aside", error=str(error))
                await asyncio.to_thread(path.rename, path.with_suffix(".broken"))
                continue
            await self._save(saved.record, saved.turns, 0)
            await asyncio.to_thread(self._spool.remove, saved.record.call)
            self.counters.unspooled += 1
            log.info("a call of the spool is in the store now", call=saved.record.call)
        self._spool_waits = False
