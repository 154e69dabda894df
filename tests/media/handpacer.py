"""A pacer whose time is told by the test."""

from __future__ import annotations

from arivox.media.clock import SLOT_S, Pacer, PacerClient


class _NoTimer:
    def close(self) -> None:
        """Have nothing to close."""


class HandPacer(Pacer):
    """``to(slots)`` lets time pass up to that many slots after the start; there is no timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self._origin

    def add(self, client: PacerClient) -> None:
        if self._timer is None:
            self._done = self.slot() - 1
            self._timer = _NoTimer()
        super().add(client)

    def slot(self, now: float | None = None) -> int:
        return super().slot(self.now if now is None else now)

    def time_of(self, slots: float) -> float:
        return self._origin + slots * SLOT_S

    def pass_to(self, slots: float) -> None:
        """Let time pass without the timer firing: the process is busy."""
        self.now = self.time_of(slots)

    def to(self, slots: float) -> None:
        """Let time pass; the timer fires once, at the end."""
        self.pass_to(slots)
        self.run(self.now)
