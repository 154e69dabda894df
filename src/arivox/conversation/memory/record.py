"""What is kept of a call: a record of the call, and its turns. Pure.

A turn is what the scripts that Arivox replaces wrote (``timestamp``, ``speaker``, ``text``, ``state``), and
what they had no place for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one side said, as far as the other heard it."""

    timestamp: str
    """When it was begun: ISO 8601 in UTC, with milliseconds."""
    speaker: Literal["user", "ai"]
    text: str
    state: str
    call: str = ""
    provider: str = ""
    cut: bool = False
    """The caller interrupted: they heard no more than ``text``."""


class CallRecord(msgspec.Struct, omit_defaults=True):
    """A call, as it is known so far."""

    call: str
    """Arivox's id, as the log has it."""
    channel: str
    """Asterisk's id of the caller's channel."""
    caller: str = ""
    exten: str = ""
    provider: str = ""
    started: float = 0.0
    """Seconds since 1970."""
    ended: float = 0.0
    reason: str = ""
    state: str = ""
    """Where the conversation is, or ended."""
    known: dict[str, str] = {}
    """What the caller has said that the flow asked for."""
    recording: str = ""
    notes: list[str] = []
    """For the people who run the line."""
    call_back: str = ""
    """When somebody should call back, and whom."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON, times as ISO 8601."""
        return msgspec.structs.asdict(self) | {
            "started": iso(self.started),
            "ended": iso(self.ended) if self.ended else "",
        }


class Saved(msgspec.Struct):
    """A call as it came out of a store, or goes into the spool."""

    record: CallRecord
    turns: list[Turn]


def iso(seconds: float) -> str:
    """Return seconds since 1970 as the scripts wrote times: 2026-11-24T08:15:30.123Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
