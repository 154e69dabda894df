"""Conversations in one SQLite file: the store that needs no server."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from arivox.conversation.memory.record import CallRecord, Saved, Turn
from arivox.errors import StoreError

T = TypeVar("T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS calls (
  call TEXT PRIMARY KEY, channel TEXT NOT NULL, caller TEXT NOT NULL, started REAL NOT NULL,
  expires REAL NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS calls_by_caller ON calls (caller, started);
CREATE INDEX IF NOT EXISTS calls_by_channel ON calls (channel, started);
CREATE INDEX IF NOT EXISTS calls_by_expiry ON calls (expires);
CREATE TABLE IF NOT EXISTS turns (
  call TEXT NOT NULL REFERENCES calls ON DELETE CASCADE, number INTEGER NOT NULL, turn TEXT NOT NULL,
  PRIMARY KEY (call, number)) WITHOUT ROWID;
"""
_BUSY_S: Final = 5.0
_PURGE_EVERY_S: Final = 600.0


class SqliteStore:
    """A file in WAL mode, used from one thread. Calls are forgotten ``ttl_s`` seconds after the last turn."""

    def __init__(self, path: Path, ttl_s: float) -> None:
        self.where = f"SQLite {path}"
        self._path = path
        self._ttl_s = ttl_s
        self._thread = ThreadPoolExecutor(1, "arivox-sqlite")
        self._connection: sqlite3.Connection | None = None
        self._purge_at = 0.0

    async def open(self) -> None:
        """Open the file, and make it where it is missing."""
        await self._do(lambda connection: None)

    async def save(self, record: CallRecord, turns: Sequence[Turn], first: int) -> int:
        """Keep the record and the turns; see ``Store.save``."""
        return await self._do(lambda connection: self._save(connection, record, turns, first))

    async def load(self, call: str) -> Saved | None:
        """Return a call by its id or its channel's."""
        return await self._do(lambda connection: self._load(connection, call))

    async def calls(self, *, caller: str | None = None, limit: int = 50) -> list[CallRecord]:
        """Return the latest calls."""
        which, values = ("AND caller = ?", (caller,)) if caller is not None else ("", ())
        query = f"SELECT record FROM calls WHERE expires > ? {which} ORDER BY started DESC LIMIT ?"  # noqa: S608

        def work(connection: sqlite3.Connection) -> list[CallRecord]:
            rows = connection.execute(query, (time.time(), *values, limit))
            return [msgspec.json.decode(row[0], type=CallRecord) for row in rows]

        return await self._do(work)

    async def erase(self, call: str) -> bool:
        """Forget a call, so that it is in no page of the file any more."""

        def work(connection: sqlite3.Connection) -> bool:
            with connection:
                connection.execute("DELETE FROM turns WHERE call = ?", (call,))
                found = connection.execute("DELETE FROM calls WHERE call = ?", (call,)).rowcount > 0
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return found

        return await self._do(work)

    async def close(self) -> None:
        """Close the file."""

        def work() -> None:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._thread.shutdown(wait=False)

    # --- in the thread ---

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            try:
                return work(self._open())
            except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
                raise StoreError(f"{self.where}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(0o600)  # what people said is nobody else's business
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _save(
        self, connection: sqlite3.Connection, record: CallRecord, turns: Sequence[Turn], first: int
    ) -> int:
        now = time.time()
        row: dict[str, Any] = {
            "call": record.call,
            "channel": record.channel,
            "caller": record.caller,
            "started": record.started,
            "expires": now + self._ttl_s,
            "record": msgspec.json.encode(record).decode(),
        }
        with connection:
            connection.execute(
                "INSERT INTO calls VALUES (:call, :channel, :caller, :started, :expires, :record) "
                "ON CONFLICT (call) DO UPDATE SET expires = :expires, record = :record",
                row,
            )
            connection.executemany(
                "INSERT OR IGNORE INTO turns VALUES (?, ?, ?)",
                [
                    (record.call, number, msgspec.json.encode(turn).decode())
                    for number, turn in enumerate(turns, first)
                ],
            )
            if now >= self._purge_at:
                self._purge_at = now + _PURGE_EVERY_S
                connection.execute("DELETE FROM calls WHERE expires <= ?", (now,))
            count = connection.execute("SELECT COUNT(*) FROM turns WHERE call = ?", (record.call,)).fetchone()
        return int(count[0])

    def _load(self, connection: sqlite3.Connection, call: str) -> Saved | None:
        row = connection.execute(
            "SELECT call, record FROM calls WHERE (call = ? OR channel = ?) AND expires > ? "
            "ORDER BY call = ? DESC, started DESC LIMIT 1",
            (call, call, time.time(), call),
        ).fetchone()
        if row is None:
            return None
        turns = connection.execute("SELECT turn FROM turns WHERE call = ? ORDER BY number", (row[0],))
        return Saved(
            msgspec.json.decode(row[1], type=CallRecord),
            [msgspec.json.decode(turn[0], type=Turn) for turn in turns],
        )
