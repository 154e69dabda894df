"""The writer: calls go on whatever the store does, and nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path

import pytest
import structlog
from stores import record, turns

from arivox.conversation.memory import writer as module
from arivox.conversation.memory.record import CallRecord, Saved, Turn
from arivox.conversation.memory.redis import RedisStore
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.sqlite import SqliteStore
from arivox.conversation.memory.store import Store
from arivox.conversation.memory.writer import CallMemory, Writer
from arivox.errors import StoreError
from arivox.testing.redis_server import RedisServer


class Fickle:
    """A store in memory that fails as it is told."""

    where = "a fickle store"

    def __init__(self) -> None:
        self.saved: dict[str, Saved] = {}
        self.down = False
        self.silent = False
        self.attempts = 0

    async def open(self) -> None:
        """Be open."""

    async def save(self, record: CallRecord, turns: Sequence[Turn], first: int) -> int:
        self.attempts += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.down:
            raise StoreError("it is down")
        there = self.saved.setdefault(record.call, Saved(record, []))
        if len(there.turns) >= first:
            there.turns.extend(turns[len(there.turns) - first :])
        return len(there.turns)

    async def load(self, call: str) -> Saved | None:
        return self.saved.get(call)

    async def calls(self, *, caller: str | None = None, limit: int = 50) -> list[CallRecord]:
        found = [one.record for one in self.saved.values() if caller in (None, one.record.caller)]
        return sorted(found, key=lambda one: -one.started)[:limit]

    async def erase(self, call: str) -> bool:
        return self.saved.pop(call, None) is not None

    async def close(self) -> None:
        """Be closed."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "delays", lambda *_: repeat(0.01))


async def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 8
    while not there():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def add(memory: CallMemory, turns: Iterable[Turn]) -> None:
    for turn in turns:
        memory.add(turn)


def in_folder(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@asynccontextmanager
async def writing(store: Store, spool: Path) -> AsyncIterator[Writer]:
    made = Writer(store, Spool(spool))
    made.start()
    try:
        yield made
    finally:
        await made.close(1.0)


async def test_turns_of_two_calls_are_stored_as_they_come(tmp_path: Path) -> None:
    store = Fickle()
    async with writing(store, tmp_path) as writer:
        calls = {name: writer.begin(record(name)) for name in ("c1", "c2")}
        for number in range(20):
            for name, memory in calls.items():
                memory.add(turns(name, 1, first=number)[0])
            await asyncio.sleep(0)
        await until(lambda: sum(len(one.turns) for one in store.saved.values()) == 40)
        for memory in calls.values():
            memory.end("completed")
        await until(lambda: all(one.record.reason == "completed" for one in store.saved.values()))
        for name in calls:
            assert store.saved[name].turns == turns(name, 20)
    assert writer.counters.stored == 40
    assert in_folder(tmp_path) == []


async def test_store_that_is_down_is_tried_again(tmp_path: Path) -> None:
    store = Fickle()
    store.down = True
    with structlog.testing.capture_logs() as logs:
        async with writing(store, tmp_path) as writer:
            memory = writer.begin(record())
            add(memory, turns("c1", 3))
            await until(lambda: store.attempts > 3)
            store.down = False
            await until(lambda: "c1" in store.saved and len(store.saved["c1"].turns) == 3)
            assert writer.counters.failures >= 3
    said = [line["event"] for line in logs]
    assert said.count("conversations cannot be stored; they are kept until it works") == 1
    assert said.count("the store of conversations is back") == 1


async def test_store_that_does_not_answer_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAVE_S", 0.05)
    store = Fickle()
    store.silent = True
    async with writing(store, tmp_path) as writer:
        writer.begin(record()).add(turns("c1", 1)[0])
        await until(lambda: writer.counters.failures > 0)
        store.silent = False
        await until(lambda: "c1" in store.saved and len(store.saved["c1"].turns) == 1)


async def test_bug_in_a_store_does_not_end_the_writing(tmp_path: Path) -> None:
    class Buggy(Fickle):
        async def save(self, record: CallRecord, turns: Sequence[Turn], first: int) -> int:
            if not self.attempts:
                self.attempts += 1
                raise ZeroDivisionError
            return await super().save(record, turns, first)

    store = Buggy()
    async with writing(store, tmp_path) as writer:
        writer.begin(record()).add(turns("c1", 1)[0])
        await until(lambda: "c1" in store.saved and len(store.saved["c1"].turns) == 1)
        assert writer.counters.failures == 1


async def test_store_that_forgot_is_told_again(tmp_path: Path) -> None:
    store = Fickle()
    async with writing(store, tmp_path) as writer:
        memory = writer.begin(record())
        add(memory, turns("c1", 4))
        await until(lambda: len(store.saved["c1"].turns) == 4 if "c1" in store.saved else False)
        store.saved.clear()
        memory.add(turns("c1", 1, first=4)[0])
        await until(lambda: "c1" in store.saved and len(store.saved["c1"].turns) == 5)
        assert store.saved["c1"].turns == turns("c1", 5)


async def test_call_that_one_store_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    class Picky(Fickle):
        async def save(self, record: CallRecord, turns: Sequence[Turn], first: int) -> int:
            if record.call == "bad":
                raise StoreError("not this one")
            return await super().save(record, turns, first)

    store = Picky()
    async with writing(store, tmp_path) as writer:
        bad, good = writer.begin(record("bad")), writer.begin(record("good"))
        bad.add(turns("bad", 1)[0])
        good.add(turns("good", 1)[0])
        await until(lambda: "good" in store.saved and len(store.saved["good"].turns) == 1)


async def test_call_that_ends_while_the_store_is_down_is_spooled_and_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TO_SPOOL_S", 0.0)
    store = Fickle()
    store.down = True
    async with writing(store, tmp_path) as writer:
        memory = writer.begin(record())
        add(memory, turns("c1", 3))
        memory.end("completed")
        await until(lambda: writer.counters.spooled == 1)
        (file,) = in_folder(tmp_path)
        assert file.stat().st_mode & 0o077 == 0, "it is nobody else's business"
        store.down = False
        await until(lambda: writer.counters.unspooled == 1)
        assert store.saved["c1"].turns == turns("c1", 3)
        assert store.saved["c1"].record.reason == "completed"
        assert in_folder(tmp_path) == []


async def test_service_that_stops_while_the_store_is_down_loses_nothing(tmp_path: Path) -> None:
    store = Fickle()
    store.down = True
    async with writing(store, tmp_path) as writer:
        memory = writer.begin(record())
        memory.add(turns("c1", 1)[0])
        memory.end("shutdown")
    assert writer.counters.lost == 0
    assert len(in_folder(tmp_path)) == 1
    store.down = False
    async with writing(store, tmp_path) as again:
        await until(lambda: again.counters.unspooled == 1)
        assert store.saved["c1"].turns == turns("c1", 1)


async def test_turns_that_nothing_takes_are_counted(tmp_path: Path) -> None:
    store = Fickle()
    store.down = True
    blocked = tmp_path / "file"
    blocked.write_text("")
    async with writing(store, blocked) as writer:
        memory = writer.begin(record())
        add(memory, turns("c1", 3))
    assert writer.counters.lost == 3


async def test_spool_file_that_is_broken_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "c1.json").write_text("{")
    Spool(tmp_path).write(Saved(record("c2"), turns("c2", 2)))
    store = Fickle()
    async with writing(store, tmp_path):
        await until(lambda: "c2" in store.saved)
    assert (tmp_path / "c1.broken").exists()


@pytest.mark.parametrize("mode", ["same-call", "caller"])
async def test_call_goes_on_from_the_one_before(mode: str, tmp_path: Path) -> None:
    store = Fickle()
    async with writing(store, tmp_path) as writer:
        first = writer.begin(record("c1", channel="17.1" if mode == "caller" else "17.2"))
        add(first, turns("c1", 3))
        first.end("caller_hangup")
        again = record("c2", channel="17.2")
        found = await writer.resume(mode, again, 60)
        assert found is not None, "also while it is still on its way to the store"
        if mode == "caller":
            await until(lambda: len(writer._calls) == 0)
            found = await writer.resume(mode, again, 60)
        assert found is not None
        assert found.turns == turns("c1", 3)
        assert await writer.resume("caller", record("c3", caller=""), 60) is None
        assert await writer.resume("caller", record("c3", caller="other"), 60) is None
        assert await writer.resume(mode, again, 0) is None


async def test_disk_that_is_full_for_a_while_loses_no_turn(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.db", 600)
    await store.open()

    async def pages(most: int) -> None:
        await store._do(lambda connection: connection.execute(f"PRAGMA max_page_count = {most}").fetchone())

    await pages(8)
    async with writing(store, tmp_path / "spool") as writer:
        memory = writer.begin(record())
        said = turns("c1", 400)
        add(memory, said[:300])
        await until(lambda: writer.counters.failures > 1)
        await pages(10_000)
        add(memory, said[300:])
        await until(lambda: memory.stored == 400)
        saved = await store.load("c1")
        assert saved is not None
        assert saved.turns == said


async def test_redis_that_dies_in_the_middle_has_every_turn_once(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        store = RedisStore(server.url, 600)
        async with writing(store, tmp_path / "spool") as writer:
            memory = writer.begin(record())
            said = turns("c1", 30)
            add(memory, said[:10])
            await until(lambda: memory.stored == 10)
            server.kill()
            add(memory, said[10:20])
            await until(lambda: writer.counters.failures > 0)
            await asyncio.to_thread(server.start)
            add(memory, said[20:])
            memory.end("completed")
            await until(lambda: not writer._calls)
            saved = await store.load("c1")
            assert saved is not None
            assert saved.turns == said
            assert saved.record.reason == "completed"


async def test_redis_that_comes_back_empty_is_told_everything(tmp_path: Path) -> None:
    with RedisServer(tmp_path, forgetful=True) as server:
        store = RedisStore(server.url, 600)
        async with writing(store, tmp_path / "spool") as writer:
            memory = writer.begin(record())
            said = turns("c1", 6)
            add(memory, said[:5])
            await until(lambda: memory.stored == 5)
            server.kill()
            await asyncio.to_thread(server.start)
            memory.add(said[5])
            await until(lambda: memory.stored == 6 and not memory.dirty)
            saved = await store.load("c1")
            assert saved is not None
            assert saved.turns == said
