"""Handles: what a session was at the end of a turn, for a new connection to go on from."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from arivox.emulator.gemini.conversation import Conversation
from arivox.emulator.gemini.messages import POLICY, RefusedError

_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A session as it was."""

    at: float
    """Monotonic seconds."""
    model: str
    conversation: Conversation
    in_use: Callable[[], bool]
    """Whether the connection that was given the handle is open."""


class Handles:
    """Every handle of a service, by its name."""

    def __init__(self) -> None:
        self._kept: dict[str, Snapshot] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def keep(
        self, model: str, conversation: Conversation, now: float, in_use: Callable[[], bool] = lambda: False
    ) -> str:
        """Keep a session as it is now; return its handle."""
        handle = secrets.token_urlsafe(24)
        self._kept[handle] = Snapshot(now, model, conversation.copy(), in_use)
        if len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]
        return handle

    def find(self, handle: str, ttl: float, now: float) -> Snapshot:
        """Return what a handle stands for; it can be used again.

        Raises:
            RefusedError: There is no such handle, or it is older than ``ttl`` seconds.
        """
        snapshot = self._kept.get(handle)
        if snapshot is None or now - snapshot.at > ttl:
            raise RefusedError("BidiGenerateContent session not found", POLICY)
        return snapshot
