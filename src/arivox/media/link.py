"""The contract of a media link: the caller's audio in, the agent's audio out, for one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from arivox.media.playout import Playout

OnAudio = Callable[[bytes], None]
"""Receives the caller's audio, in order, in the link's format; any number of bytes."""


class Tap(Protocol):
    """Hears both sides of a link as they pass: the recorder."""

    def caller(self, audio: bytes) -> None:
        """Take audio that came from the caller."""
        ...

    def agent(self, audio: bytes) -> None:
        """Take audio that was sent to the caller, silence included."""
        ...


class MediaLink(Protocol):
    """Carries the audio of one call between Asterisk and us.

    The link pulls frames from its playout by itself. ``wake`` tells it that the playout has something after
    it was empty.
    """

    playout: Playout

    def start(self, on_audio: OnAudio, tap: Tap | None = None) -> None:
        """Begin to send and to deliver audio."""
        ...

    def wake(self) -> None:
        """Send waiting audio now rather than at the next tick."""
        ...

    async def close(self) -> None:
        """Stop, and free everything. May be called twice."""
        ...

    def counters(self) -> dict[str, int]:
        """Return what was counted, for the log line at the end of the call."""
        ...
