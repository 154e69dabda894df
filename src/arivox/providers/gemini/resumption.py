"""The handle that takes a session up, and when it is given up for a new session. Pure."""

from __future__ import annotations

from typing import Final

MOST_REFUSALS: Final = 2
"""So often a handle is tried though the service refuses it."""


class Resumption:
    """The latest handle; empty: the next connection begins a new session."""

    def __init__(self) -> None:
        self.handle = ""
        self._refusals = 0

    def given(self, handle: str) -> None:
        """Take a handle of the service."""
        self.handle = handle
        self._refusals = 0

    def refused(self, code: str) -> None:
        """Hear that the service did not take the session up; ``connect``: it may at another time."""
        self._refusals += 1
        if code != "connect" or self._refusals >= MOST_REFUSALS:
            self.given_up()

    def given_up(self) -> None:
        """Begin a new session next."""
        self.given("")
