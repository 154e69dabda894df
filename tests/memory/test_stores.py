"""The stores: each keeps calls and turns, in order, once, and forgets them when told to or in time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis
from stores import record, turns

from arivox.conversation.memory.redis import RedisStore
from arivox.conversation.memory.sqlite import SqliteStore
from arivox.conversation.memory.store import Store, make, url_of
from arivox.errors import SettingsError, StoreError
from arivox.settings.settings import Settings
from arivox.testing.redis_server import RedisServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), password="s3cret/word") as running:
        yield running


def client(server: RedisServer) -> Any:
    return sync_redis.Redis(port=server.port, password="s3cret/word", decode_responses=True)


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "deep" / "memory.db", 3600)
    else:
        server = request.getfixturevalue("server")
        client(server).flushall()
        given = Settings(redis_host="127.0.0.1", redis_port=server.port, redis_password="s3cret/word")
        chosen = make(given)
        assert chosen is not None
        made = chosen
    await made.open()
    yield made
    await made.close()


async def test_turns_come_back_in_order(store: Store) -> None:
    said = turns("c1", 7)
    assert await store.save(record(), said[:3], 0) == 3
    assert await store.save(record(), said[3:], 3) == 7
    saved = await store.load("c1")
    assert saved is not None
    assert saved.turns == said
    assert saved.record.caller == "5551234"


async def test_turn_that_is_saved_twice_is_there_once(store: Store) -> None:
    said = turns("c1", 5)
    await store.save(record(), said[:3], 0)
    assert await store.save(record(), said[1:], 1) == 5
    assert await store.save(record(), said, 0) == 5
    saved = await store.load("c1")
    assert saved is not None
    assert saved.turns == said


async def test_turns_that_are_lost_are_asked_for(store: Store) -> None:
    assert await store.save(record(), turns("c1", 2, first=4), 4) < 4
    saved = await store.load("c1")
    assert saved is None or len(saved.turns) < 4


async def test_record_is_the_latest(store: Store) -> None:
    first, later = record(), record()
    await store.save(first, [], 0)
    later.reason, later.known = "completed", {"reason": "a toothache"}
    await store.save(later, [], 0)
    saved = await store.load("c1")
    assert saved is not None
    assert (saved.record.reason, saved.record.known) == ("completed", {"reason": "a toothache"})


async def test_calls_are_listed_by_caller_the_newest_first(store: Store) -> None:
    now = time.time()
    for number in range(6):
        caller = "5551234" if number % 2 else "5559876"
        await store.save(record(f"c{number}", caller=caller, started=now + number), [], 0)
    assert [one.call for one in await store.calls(limit=3)] == ["c5", "c4", "c3"]
    assert [one.call for one in await store.calls(caller="5551234")] == ["c5", "c3", "c1"]
    assert await store.calls(caller="nobody") == []


async def test_channel_finds_its_latest_call(store: Store) -> None:
    """A caller who is sent on and comes back is another call on the same channel."""
    now = time.time()
    for number in (1, 2):
        call = f"c{number}"
        await store.save(record(call, channel="1700.5", started=now + number), turns(call, 2), 0)
    saved = await store.load("1700.5")
    assert saved is not None
    assert saved.record.call == "c2"
    assert saved.turns == turns("c2", 2)


async def test_erased_call_is_gone_and_others_are_not(store: Store) -> None:
    for call in ("c1", "c2"):
        await store.save(record(call, channel="1700.5"), turns(call, 3), 0)
    assert await store.erase("c1")
    assert not await store.erase("c1")
    assert await store.load("c1") is None
    other = await store.load("c2")
    assert other is not None
    assert other.turns == turns("c2", 3)
    assert [one.call for one in await store.calls()] == ["c2"]


def files_with(words: bytes, folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if words in file.read_bytes()]


async def test_erased_words_are_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    store = SqliteStore(path, 3600)
    await store.save(record(), turns("c1", 50), 0)
    assert files_with(b"c1 says 7", tmp_path)
    await store.erase("c1")
    assert files_with(b"c1 says 7", tmp_path) == []
    await store.close()


async def test_sqlite_forgets_in_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "memory.db", 0.0)
    await store.save(record(), turns("c1", 3), 0)
    assert await store.load("c1") is None
    assert await store.calls() == []
    await store.close()


async def test_redis_forgets_in_time_and_old_readers_read_on(server: RedisServer) -> None:
    """What the scripts' list had, it has; with the time to live of the setting."""
    store = RedisStore(f"redis://:s3cret%2Fword@127.0.0.1:{server.port}/0", 500)
    await store.save(record("c9", channel="1700.9"), turns("c9", 2), 0)
    found = client(server)
    lines = [json.loads(line) for line in found.lrange("conv:1700.9", 0, -1)]
    assert [(line["speaker"], line["text"], line["state"]) for line in lines] == [
        ("user", "c9 says 0", "greeting"),
        ("ai", "c9 says 1", "greeting"),
    ]
    assert lines[0]["timestamp"] == "1970-01-01T00:00:00.000Z"
    keys = set(found.keys("*1700.9") + found.keys("*c9"))
    assert keys == {"conv:1700.9", "arivox:channel:1700.9", "arivox:call:c9"}
    assert all(0 < found.ttl(key) <= 1000 for key in keys)
    assert found.ttl("conv:1700.9") <= 500
    await store.close()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "sqlite:///arivox-memory.db"),
        ({"memory_url": "none"}, ""),
        ({"memory_url": "sqlite:////var/lib/a.db", "redis_host": "r"}, "sqlite:////var/lib/a.db"),
        ({"redis_host": "r"}, "redis://r:6379/0"),
        ({"redis_host": "r", "redis_password": "a/b@c", "redis_db": 3}, "redis://:a%2Fb%40c@r:6379/3"),
        (
            {"redis_host": "r", "redis_username": "u", "redis_password": "p", "redis_tls": True},
            "rediss://u:p@r:6379/0",
        ),
    ],
)
def test_store_is_chosen_by_the_settings(given: dict[str, Any], url: str) -> None:
    assert url_of(Settings(**given)) == url


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:memory.db", "nonsense"])
def test_store_that_is_unknown_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="MEMORY_URL"):
        make(Settings(memory_url=url))


async def test_password_is_in_no_error(server: RedisServer) -> None:
    store = RedisStore(f"redis://:wr0ng@127.0.0.1:{server.port}/0", 60)
    with pytest.raises(StoreError) as caught:
        await store.open()
    assert "wr0ng" not in str(caught.value)
    assert str(server.port) in str(caught.value)
    await store.close()
    assert "wr0ng" not in repr(Settings(memory_url="redis://:wr0ng@h/0"))


async def test_file_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "memory.db", 60)
    with pytest.raises(StoreError, match=r"memory\.db"):
        await store.open()
    await store.close()
