"""Conversations in Redis, in the scripts' own shape: a list ``conv:<channel id>`` of turns as JSON.

Beside it stand, under names of our own, the record of each call and its indexes:
``arivox:call:<call id>`` (hash: ``record``, and ``turns``: how many of them the list holds), and the sorted
sets of call ids by start ``arivox:channel:<channel id>``, ``arivox:caller:<number>`` and ``arivox:calls``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from arivox.conversation.memory.record import CallRecord, Saved, Turn
from arivox.errors import SettingsError, StoreError

_TIMEOUT_S: Final = 3.0

# All or nothing, and nothing twice: after a broken connection nobody knows what has arrived.
_SAVE: Final = """
local conv, call, channel, caller, calls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, first, ttl, started, record = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local now = tonumber(ARGV[6])
local there = tonumber(redis.call('HGET', call, 'turns') or '0')
if there < first then return there end
for i = 7 + there - first, #ARGV do
  redis.call('RPUSH', conv, ARGV[i])
  there = there + 1
end
redis.call('HSET', call, 'record', record, 'turns', there)
for _, index in ipairs({channel, caller, calls}) do
  redis.call('ZADD', index, started, id)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - 2 * ttl)
  redis.call('EXPIRE', index, ttl * 2)
end
redis.call('EXPIRE', conv, ttl)
redis.call('EXPIRE', call, ttl)
return there
"""


class RedisStore:
    """One Redis server, by its URL. Calls are forgotten ``ttl_s`` seconds after their last turn.

    ``setting`` is the one that asks for it.
    """

    def __init__(self, url: str, ttl_s: int, setting: str = "MEMORY_URL") -> None:
        try:
            import redis.asyncio as redis
            from redis.exceptions import RedisError
        except ImportError as error:
            raise SettingsError(
                setting, "the redis package is missing", "Install the extra: pip install 'arivox[redis]'"
            ) from error
        parts = urlsplit(url)
        self.where = f"Redis {parts.hostname}:{parts.port or 6379}"
        self._ttl_s = ttl_s
        self._errors: Any = (RedisError, OSError)
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=True
            )
        except ValueError as error:
            # The URL may hold a password; the library's text holds the URL.
            raise SettingsError("MEMORY_URL", f"is not a valid address of {self.where}") from error
        self._save = self._client.register_script(_SAVE)

    async def open(self) -> None:
        """See that the server answers and lets us in."""
        await self._do(self._client.ping())

    async def save(self, record: CallRecord, turns: Sequence[Turn], first: int) -> int:
        """Keep the record and the turns; see ``Store.save``."""
        keys = [
            f"conv:{record.channel}",
            f"arivox:call:{record.call}",
            f"arivox:channel:{record.channel}",
            f"arivox:caller:{record.caller}",
            "arivox:calls",
        ]
        arguments: list[str | int | float] = [
            record.call,
            first,
            self._ttl_s,
            record.started,
            msgspec.json.encode(record).decode(),
            time.time(),
            *(msgspec.json.encode(turn).decode() for turn in turns),
        ]
        return int(await self._do(self._save(keys=keys, args=arguments)))

    async def load(self, call: str) -> Saved | None:
        """Return a call by its id or its channel's."""
        record = await self._record(call)
        if record is None:
            ids = await self._do(self._client.zrevrange(f"arivox:channel:{call}", 0, 0))
            record = await self._record(ids[0]) if ids else None
        if record is None:
            return None
        lines = await self._do(self._client.lrange(f"conv:{record.channel}", 0, -1))
        turns = [self._decode(line, Turn) for line in lines]
        # A channel that came back has the turns of several calls in its list.
        return Saved(record, [turn for turn in turns if turn.call == record.call])

    async def calls(self, *, caller: str | None = None, limit: int = 50) -> list[CallRecord]:
        """Return the latest calls."""
        index = "arivox:calls" if caller is None else f"arivox:caller:{caller}"
        ids = await self._do(self._client.zrevrange(index, 0, limit - 1))
        pipe = self._client.pipeline(transaction=False)
        for one in ids:
            pipe.hget(f"arivox:call:{one}", "record")
        records = await self._do(pipe.execute())
        return [self._decode(text, CallRecord) for text in records if text is not None]

    async def erase(self, call: str) -> bool:
        """Forget a call, by its id."""
        saved = await self.load(call)
        if saved is None or saved.record.call != call:
            return False
        record = saved.record
        pipe = self._client.pipeline(transaction=True)
        for turn in saved.turns:
            pipe.lrem(f"conv:{record.channel}", 0, msgspec.json.encode(turn).decode())
        pipe.delete(f"arivox:call:{call}")
        for index in (f"arivox:channel:{record.channel}", f"arivox:caller:{record.caller}", "arivox:calls"):
            pipe.zrem(index, call)
        await self._do(pipe.execute())
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._do(self._client.aclose())

    async def _record(self, call: str) -> CallRecord | None:
        text = await self._do(self._client.hget(f"arivox:call:{call}", "record"))
        return self._decode(text, CallRecord) if text is not None else None

    def _decode(self, text: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.where}: a value that cannot be read: {error}") from error

    async def _do(self, request: Any) -> Any:
        try:
            return await request
        except self._errors as error:
            raise StoreError(f"{self.where}: {error}") from error
