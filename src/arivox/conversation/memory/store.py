"""What every store of conversations can do, and which one the settings choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

from arivox.conversation.memory.record import CallRecord, Saved, Turn
from arivox.errors import SettingsError
from arivox.settings.settings import Settings

DEFAULT: Final = "sqlite:///arivox-memory.db"


class Store(Protocol):
    """Raises StoreError where it cannot be reached or refuses."""

    where: str
    """What it is, for people; without a password."""

    async def open(self) -> None:
        """Make it ready, and see that it answers."""
        ...

    async def save(self, record: CallRecord, turns: Sequence[Turn], first: int) -> int:
        """Keep the record, and the call's turns from the ``first``-th on.

        Return how many of the call's turns are there now; fewer than ``first`` says that some are lost and
        must be saved again. To save a turn twice is to save it once.
        """
        ...

    async def load(self, call: str) -> Saved | None:
        """Return a call by its id or its channel's; the latest one of that channel."""
        ...

    async def calls(self, *, caller: str | None = None, limit: int = 50) -> list[CallRecord]:
        """Return the latest calls, the newest first: all of them, or one caller's."""
        ...

    async def erase(self, call: str) -> bool:
        """Forget a call, by its id. Return whether it was there."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


def url_of(settings: Settings) -> str:
    """Return the URL of the store that the settings choose; empty: none.

    Raises SettingsError.
    """
    url = settings.memory_url
    if url == "none":
        return ""
    if url:
        return url
    if not settings.redis_host:
        return DEFAULT
    user = quote(settings.redis_username, safe="")
    password = quote(settings.redis_password, safe="")
    login = f"{user}:{password}@" if password or user else ""
    scheme = "rediss" if settings.redis_tls else "redis"
    return f"{scheme}://{login}{settings.redis_host}:{settings.redis_port}/{settings.redis_db}"


def make(settings: Settings) -> Store | None:
    """Return the store that the settings choose, not open yet. Raises SettingsError."""
    url = url_of(settings)
    if not url:
        return None
    scheme = urlsplit(url).scheme
    ttl_s = settings.redis_conversation_ttl_s
    if scheme == "sqlite":
        from arivox.conversation.memory.sqlite import SqliteStore

        return SqliteStore(sqlite_path(url), ttl_s)
    if scheme in ("redis", "rediss"):
        from arivox.conversation.memory.redis import RedisStore

        return RedisStore(url, ttl_s, "MEMORY_URL" if settings.memory_url else "REDIS_HOST")
    raise SettingsError("MEMORY_URL", f"{scheme or url!r} is not redis://, rediss://, sqlite:/// or none")


def sqlite_path(url: str) -> Path:
    """Return the file of a ``sqlite:///`` URL. Raises SettingsError."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise SettingsError(
            "MEMORY_URL", f"{url!r} is not sqlite:/// and a path", "sqlite:////var/lib/x.db is absolute."
        )
    return Path(path)
