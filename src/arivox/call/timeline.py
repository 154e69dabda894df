"""The timeline of a call: one append-only list of what happened, and when.

Logs, metrics, transcripts and the demo's screen are views of it. It never holds secrets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

log = structlog.get_logger()

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. ``kind`` is a dotted name: ``call.answered``, ``agent.said``, ``barge_in``."""

    ms: int
    """Milliseconds since the start of the call, on the monotonic clock."""
    kind: str
    data: dict[str, Value] = field(default_factory=dict)


Watcher = Callable[["Timeline", Entry], None]


class Timeline:
    """What happened in one call."""

    def __init__(
        self,
        call_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        watchers: tuple[Watcher, ...] = (),
    ) -> None:
        self.call_id = call_id
        self.started_at: Final = time.time()
        self._clock = clock
        self._start = clock()
        self._watchers = watchers
        self._entries: list[Entry] = []

    def add(self, kind: str, /, **data: Value) -> Entry:
        """Append an event that happens now, and show it to the watchers."""
        entry = Entry(self.now_ms(), kind, data)
        self._entries.append(entry)
        for watcher in self._watchers:
            try:
                watcher(self, entry)
            except Exception:
                # Events come from the audio path: who only looks on must not disturb it.
                log.exception("a watcher of the timeline failed", kind=kind)
        return entry

    def now_ms(self) -> int:
        """Return the milliseconds since the start of the call."""
        return round((self._clock() - self._start) * 1000)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, kind: str) -> list[Entry]:
        """Return the events of one kind, in order."""
        return [entry for entry in self._entries if entry.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        """Return the timeline ready for JSON."""
        return {
            "call": self.call_id,
            "started_at": self.started_at,
            "events": [{"ms": e.ms, "kind": e.kind, "data": e.data} for e in self._entries],
        }
